"""What kagent-add and ssh-add ask, and how."""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.openssh import programs
from tests.support.programs import RSA, SECONDS, Agent, Person, Same, wait_until

ASKPASS = """\
#!/bin/sh
echo "$1" >>askpass.log
cat answer
"""


def test_passphrase_from_standard_input(same: Same, person: Person) -> None:
    person.key("key", *RSA, passphrase="geheim")
    assert "Bad passphrase" in same("key", input="falsch\ngeheim\n").stderr
    assert same("key", input="falsch\n\n").returncode == 1
    assert same("key", SSH_ASKPASS_REQUIRE="never", DISPLAY=":9").returncode == 1


def test_passphrase_from_askpass(same: Same, person: Person) -> None:
    """Asked once: the second key has the passphrase of the first, the third another."""
    person.file("askpass", ASKPASS, mode=0o700)
    person.key("one", *RSA, passphrase="geheim")
    person.key("two", *RSA, "-m", "PEM", passphrase="geheim")
    person.file("answer", "geheim\n")
    for how in ({"DISPLAY": ":9"}, {"SSH_ASKPASS_REQUIRE": "force"}):
        log = person.file("askpass.log", "")
        assert same("one", "two", SSH_ASKPASS="./askpass", **how).returncode == 0
        assert log.read_text() == "Enter passphrase for one: \n" * 2  # both programs, once each
    person.file("answer", "")
    assert same("one", SSH_ASKPASS="./askpass", SSH_ASKPASS_REQUIRE="force").returncode == 1
    assert same("one", SSH_ASKPASS="false", SSH_ASKPASS_REQUIRE="force").returncode == 1
    assert same("one", SSH_ASKPASS="./missing", SSH_ASKPASS_REQUIRE="force").returncode == 1


def test_wayland_has_askpass_too(person: Person, agents: tuple[Agent, Agent]) -> None:
    """OpenSSH 9.6 and later; older ones look at DISPLAY alone."""
    person.file("askpass", ASKPASS, mode=0o700)
    person.file("answer", "geheim\n")
    person.key("key", *RSA, passphrase="geheim")
    agents[1].run("kagent-add", "key", SSH_ASKPASS="./askpass", WAYLAND_DISPLAY="wayland-0")


class Terminal:
    """A person's terminal, on which `key` is being loaded."""

    def __init__(self, agent: Agent, program: str | Path, *words: str) -> None:
        """`words` are those of a command that runs the program."""
        screen, terminal = pty.openpty()
        self._screen = open(screen, "r+b", buffering=0)  # noqa: SIM115, see close
        self.process = agent.person.start(
            *("setsid", "--ctty", "--wait", *words, program, "key"),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={"SSH_AUTH_SOCK": str(agent.socket)},
        )
        os.close(terminal)
        self.shown = b""

    def wait_for(self, prompt: bytes) -> None:
        """Read until the prompt is there and the program waits for an answer."""
        while not self.shown.endswith(prompt):
            assert select.select([self._screen], [], [], SECONDS)[0], self.shown
            self.shown += self._screen.read(1)
        status = Path(f"/proc/{self.process.pid}/status")
        wait_until(lambda: "State:\tS" in status.read_text())

    def type(self, line: bytes) -> None:
        self._screen.write(line)

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._screen)[3] & termios.ECHO)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        try:
            while chunk := self._screen.read(4096):
                self.shown += chunk
        except OSError:  # EIO: nobody has the terminal open any more
            pass
        return self.process.wait(SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._screen.close()


Terminals = tuple[Terminal, Terminal]


@pytest.fixture
def terminals(person: Person, agents: tuple[Agent, Agent]) -> Iterator[Terminals]:
    """ssh-add and kagent-add asking for the passphrase of `key`."""
    person.key("key", *RSA, passphrase="geheim")
    theirs, ours = Terminal(agents[0], "ssh-add"), Terminal(agents[1], "kagent-add")
    yield theirs, ours
    theirs.close()
    ours.close()


def test_passphrase_from_terminal(terminals: Terminals) -> None:
    """On a terminal the prompt is there and what is typed isn't."""
    for terminal in terminals:
        terminal.wait_for(b"key: ")
        assert not terminal.echoes
        terminal.type(b"falsch\n")
        terminal.wait_for(b"again for key: ")
        terminal.type(b"geheim\n")
        assert terminal.end() == 0
    theirs, ours = terminals
    assert ours.shown == theirs.shown
    assert b"geheim" not in ours.shown
    assert b"Identity added" in ours.shown


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, None])
def test_a_terminal_is_left_as_it_was(terminals: Terminals, ending: int | None) -> None:
    for terminal in terminals:
        terminal.wait_for(b"key: ")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.wait_for(b"\r\nEnter passphrase for key: ")
        if ending is None:
            terminal.type(b"\x04")  # the end of what is typed
            assert terminal.end() == 1
        else:
            terminal.process.send_signal(ending)
            assert terminal.end() == -ending
        assert terminal.echoes
    theirs, ours = terminals
    assert ours.shown == theirs.shown


@pytest.mark.parametrize("ignored", ["TTIN", "TTOU TTIN", "TTOU TTIN TSTP INT"])
def test_in_the_background_of_a_terminal(
    person: Person, agents: tuple[Agent, Agent], ignored: str
) -> None:
    """Where it may not read, and isn't stopped either, it gives up, as ssh-add since 10.6."""
    person.key("key", passphrase="geheim")
    background = f"ulimit -t 5; trap '' {ignored}; set -m; \"$@\" & wait $!"
    for one, program in zip(agents, (programs() / "ssh-add", "kagent-add"), strict=True):
        terminal = Terminal(one, program, "sh", "-c", background, "sh")
        try:
            assert terminal.end() == (1 if "TTOU" in ignored else 128 + signal.SIGTTOU)
        finally:
            terminal.close()


def test_locking(same: Same, person: Person) -> None:
    person.key("key", "-t", "ed25519")
    same("key")
    assert same("-x", input="geheim\nandere\n").stderr.endswith("Passwords do not match.\n")
    assert same("-x", input="geheim\ngeheim\n").stderr.endswith("Agent locked.\n")
    assert "no identities" in same("-l").stdout
    assert same("key").returncode == 1
    assert same("-D").returncode == 1
    assert same("-x", input="geheim\ngeheim\n").returncode == 1
    assert same("-X", input="andere\n").returncode == 1
    person.file("askpass", ASKPASS, mode=0o700)
    person.file("answer", "geheim\n")
    askpass = {"SSH_ASKPASS": "./askpass", "SSH_ASKPASS_REQUIRE": "force"}
    assert same("-X", **askpass).stderr == "Agent unlocked.\n"
    assert "key" in same("-l").stdout
    log = person.file("askpass.log", "")
    assert same("-x", **askpass).returncode == 0
    assert log.read_text() == "Enter lock password: \nAgain: \n" * 2
