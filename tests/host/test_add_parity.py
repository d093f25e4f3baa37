"""kagent-add and ssh-add, each with a stock ssh-agent: same output, same exit code."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import Agent, Person, agent

Same = Callable[..., subprocess.CompletedProcess[str]]

ASKPASS = """\
#!/bin/sh
echo "$1" >>askpass.log
cat answer
"""


@pytest.fixture
def agents(person: Person) -> Iterator[tuple[Agent, Agent]]:
    with agent(person, "ssh-agent") as one, agent(person, "ssh-agent") as other:
        yield one, other


@pytest.fixture
def same(agents: tuple[Agent, Agent]) -> Same:
    """Runs both programs with the same arguments; they must say and end the same."""

    def run(*words: str, **options: str) -> subprocess.CompletedProcess[str]:
        theirs, ours = (
            one.run(program, *words, check=False, **options)
            for one, program in zip(agents, ("ssh-add", "kagent-add"), strict=True)
        )
        assert (ours.returncode, ours.stdout, ours.stderr) == (
            theirs.returncode,
            theirs.stdout,
            theirs.stderr,
        )
        return ours

    return run


def key(person: Person, name: str, *options: str, passphrase: str = "") -> Path:
    """A key pair of the person's own."""
    path = person.home / name
    person.run("ssh-keygen", "-q", "-N", passphrase, "-C", f"{name} käse", "-f", path, *options)
    return path


RSA = ("-t", "rsa", "-b", "2048")


@pytest.mark.parametrize(
    "options",
    [
        RSA,
        (*RSA, "-m", "PEM"),
        (*RSA, "-m", "PKCS8"),
        ("-t", "ed25519"),
        ("-t", "ecdsa", "-b", "384"),
        ("-t", "ecdsa", "-b", "521", "-m", "PEM"),
    ],
    ids=" ".join,
)
def test_a_keys_life(same: Same, person: Person, options: tuple[str, ...]) -> None:
    key(person, "key", *options)
    assert "no identities" in same("-l").stdout
    assert "Identity added: key (" in same("key").stderr
    for hash_name in ("md5", "SHA1", "sha256", "sha384", "sha512"):
        assert "key" in same("-l", "-E", hash_name).stdout
    assert same("-L").returncode == 0
    assert same("-T", "key.pub").returncode == 0
    assert "Identity removed: key" in same("-d", "key").stderr
    assert "agent refused operation" in same("-T", "key.pub").stderr
    assert "Could not remove" in same("-d", "key").stderr
    assert same("key", "-q").returncode == 1  # an option behind a file is a file
    assert same("-q", "key").stderr == ""
    assert same("-D").stderr == "All identities removed.\n"
    assert same("-qD").stderr == ""


def test_order_and_several_files(same: Same, person: Person) -> None:
    for name in ("one", "two", "three"):
        key(person, name, "-t", "ed25519")
    assert same("one", "missing", "two").returncode == 1
    assert same("three").returncode == 0
    assert same("one").returncode == 0
    listed = same("-l").stdout
    assert [line.split()[2] for line in listed.splitlines()] == ["one", "two", "three"]
    assert same("-d", "two", "missing", "three").returncode == 1
    assert same("-d", "-", input=(person.home / "one.pub").read_text()).returncode == 0
    assert same("-d", "-", input="# nothing\n\n").returncode == 1


def test_standard_input(same: Same, person: Person) -> None:
    path = key(person, "key", *RSA, "-m", "PEM")
    assert "Identity added: (stdin) ((stdin))" in same("-", input=path.read_text()).stderr


def test_bad_files(same: Same, person: Person) -> None:
    person.file("empty", "")
    person.file("garbage", "garbage\n")
    person.file("half", key(person, "key", *RSA, "-m", "PEM").read_text()[:200])
    person.file("open", (person.home / "key").read_bytes(), mode=0o644)
    (person.home / "directory").mkdir(mode=0o700)
    for name in ("empty", "garbage", "half", "open", "missing"):
        assert same(name).returncode == 1
        assert same("-T", name).returncode == 1
        assert same("-d", name).returncode == 1


def test_command_lines_that_make_no_sense(same: Same) -> None:
    for words in (("-l", "-L"), ("-l", "-D"), ("-E", "sha3"), ("-T",)):
        assert same(*words).returncode == 255


def test_unknown_option(agents: tuple[Agent, Agent]) -> None:
    for words in (["-z"], ["-E"]):
        theirs = agents[0].run("ssh-add", *words, check=False)
        ours = agents[1].run("kagent-add", *words, check=False)
        assert ours.returncode == theirs.returncode == 1
        assert ours.stderr.splitlines()[0] == theirs.stderr.splitlines()[0]


def test_no_agent(same: Same) -> None:
    assert same("-l", SSH_AUTH_SOCK="").returncode == 2
    assert same("-l", SSH_AUTH_SOCK="/nowhere").returncode == 2


def test_passphrase_from_standard_input(same: Same, person: Person) -> None:
    key(person, "key", *RSA, passphrase="geheim")
    assert "Bad passphrase" in same("key", input="falsch\ngeheim\n").stderr
    assert same("key", input="falsch\n\n").returncode == 1
    assert same("key", SSH_ASKPASS_REQUIRE="never", DISPLAY=":9").returncode == 1


def test_passphrase_from_askpass(same: Same, person: Person) -> None:
    """Asked once: the second key has the passphrase of the first, the third another."""
    person.file("askpass", ASKPASS, mode=0o700)
    key(person, "one", *RSA, passphrase="geheim")
    key(person, "two", *RSA, "-m", "PEM", passphrase="geheim")
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
    key(person, "key", *RSA, passphrase="geheim")
    agents[1].run("kagent-add", "key", SSH_ASKPASS="./askpass", WAYLAND_DISPLAY="wayland-0")


def test_passphrase_from_terminal(person: Person, agents: tuple[Agent, Agent]) -> None:
    """On a terminal the prompt is there and what is typed isn't."""
    key(person, "key", *RSA, passphrase="geheim")
    said = [
        on_a_terminal(one, program)
        for one, program in zip(agents, ("ssh-add", "kagent-add"), strict=True)
    ]
    assert said[0] == said[1]
    assert "geheim" not in said[1]
    assert "Identity added" in said[1]


def on_a_terminal(agent: Agent, program: str) -> str:
    """Load `key` as a person at a terminal does, wrong at first; what the terminal showed."""
    screen, terminal = pty.openpty()
    with (
        open(screen, "r+b", buffering=0) as keyboard,
        agent.person.start(
            *("setsid", "--ctty", "--wait", program, "key"),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={"SSH_AUTH_SOCK": str(agent.socket)},
        ) as process,
    ):
        os.close(terminal)
        shown = b""
        for prompt, answer in ((b"key: ", b"falsch\n"), (b"again for key: ", b"geheim\n")):
            while not shown.endswith(prompt):
                shown += keyboard.read(1)
            keyboard.write(answer)
        try:
            while chunk := keyboard.read(1):
                shown += chunk
        except OSError:  # EIO: nobody has the terminal open any more
            pass
    assert process.returncode == 0, shown
    return shown.decode()
