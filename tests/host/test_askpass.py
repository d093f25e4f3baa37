"""ssh-askpass as ssh-agent runs it, and what becomes of it when its client goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent.jobs.jobs import Done, Refused
from kagent.jobs.questions import Ask, ClientProcess, Purpose, Question
from kagent.openssh.askpass import CannotAsk, Patience, Unanswered, confirm, notice, secret
from kagent.workers.asking import ask as job
from kagent.workers.wording import worded
from tests.support.programs import SECONDS, Person, wait_until

# Writes down its hint and what it is asked, and then does what the test wants.
ASKPASS = """\
#!/bin/sh
cd "${0%/*}"
echo "$SSH_ASKPASS_PROMPT: $1" >>asked
. ./behaviour
"""
VARIABLES = ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY", "WAYLAND_DISPLAY")


@pytest.fixture
def askpass(person: Person, monkeypatch: pytest.MonkeyPatch) -> Person:
    """The person, who has an ssh-askpass and a display."""
    program = person.file("askpass", ASKPASS, mode=0o700)
    environment(monkeypatch, SSH_ASKPASS=str(program), DISPLAY=":9")
    return person


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def ask(question: str = "Allow?", seconds: float = SECONDS) -> None:
    """Ask for a client that stays."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        confirm(question, Patience((ours.fileno(),), seconds))


def allowed(question: str) -> bool:
    try:
        ask(question)
    except (CannotAsk, Unanswered):
        return False
    return True


@contextmanager
def ssh_agent(person: Person) -> Iterator[Path]:
    """OpenSSH's, with our variables and a key that it asks for."""
    path = person.home / "agent.sock"
    agent = {"SSH_AUTH_SOCK": str(path)}
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "my key", "-f", "key")
    with person.start(
        "ssh-agent", "-D", "-a", path, env=variables, stdout=subprocess.DEVNULL
    ) as process:
        try:
            # The path is there a moment before it can be connected to.
            wait_until(lambda: person.run("ssh-add", "-l", check=False, **agent).returncode == 1)
            person.run("ssh-add", "-c", "key", **agent)
            yield path
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_an_answer_is_what_it_is_for_ssh_agent(askpass: Person) -> None:
    behaviours = [
        *(
            "true",
            "false",
            "echo",
            "echo yes",
            "echo YES",
            "printf yes",
            "echo no",
            "echo yes; false",
        ),
        *("printf 'yes\\r\\nno\\n'", "echo ' yes'", "echo y", "printf '\\nno'", "kill -9 $$"),
        *("yes '' | head -c 2000", "yes yes | head -c 100000", "exec >&-; true", "printf '\\0no'"),
    ]
    asked = askpass.home / "asked"
    with ssh_agent(askpass) as path:
        for behaviour in behaviours:
            askpass.file("behaviour", behaviour + "\n")
            told = askpass.run("ssh-add", "-T", "key", check=False, SSH_AUTH_SOCK=str(path))
            hint, question = asked.read_text().removesuffix("\n").split(": ", 1)
            asked.unlink()
            assert allowed(question) == (told.returncode == 0), behaviour
            assert asked.read_text() == f"{hint}: {question}\n"
            asked.unlink()
    assert hint == "confirm"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"DISPLAY": ":9"},
        {"DISPLAY": ""},
        {"DISPLAY": ":9", "SSH_ASKPASS_REQUIRE": "never"},
        {"DISPLAY": ":9", "SSH_ASKPASS_REQUIRE": "prefer"},
        {"SSH_ASKPASS_REQUIRE": "prefer"},
        {"SSH_ASKPASS_REQUIRE": "FORCE"},
        {"DISPLAY": ":9", "SSH_ASKPASS": ""},
        {"DISPLAY": ":9", "SSH_ASKPASS": "/nowhere"},
    ],
    ids=str,
)
def test_who_may_ask_is_who_may_for_ssh_agent(
    askpass: Person, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    askpass.file("behaviour", "true\n")
    environment(monkeypatch, **{"SSH_ASKPASS": str(askpass.home / "askpass"), **variables})
    with ssh_agent(askpass) as path:
        told = askpass.run("ssh-add", "-T", "key", check=False, SSH_AUTH_SOCK=str(path))
    assert allowed("Allow?") == (told.returncode == 0)


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({}, "set DISPLAY or WAYLAND_DISPLAY"),
        ({"DISPLAY": ":9", "SSH_ASKPASS_REQUIRE": "never"}, "unset SSH_ASKPASS_REQUIRE"),
        ({"WAYLAND_DISPLAY": "wayland-0", "SSH_ASKPASS": "/nowhere"}, "set SSH_ASKPASS"),
    ],
)
def test_who_cannot_ask_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], advice: str
) -> None:
    environment(monkeypatch, **variables)
    with pytest.raises(CannotAsk, match=advice):
        ask()
    assert secret("PIN: ") == ""


def test_all_of_it_ends_when_the_client_goes(askpass: Person) -> None:
    """Whether that shows on the client's socket or on the pipe for the answer."""
    askpass.file("behaviour", "trap '' TERM; sleep 1000 & echo $! >child; wait; wait\n")
    child = askpass.home / "child"
    for ours, theirs in (end_to_end(), os.pipe()[::-1]):
        threading.Thread(
            target=lambda end=theirs: (wait_until(child.exists), os.close(end))
        ).start()
        with pytest.raises(Unanswered, match="went away"):
            confirm("Allow?", Patience((ours,)))
        os.close(ours)
        wait_until(lambda: gone(int(child.read_text())))
        child.unlink()


def test_it_ends_with_its_worker(askpass: Person) -> None:
    askpass.file("behaviour", "echo $$ >child; exec sleep 1000\n")
    child = askpass.file("child", "")
    worker = os.fork()
    if worker == 0:
        try:
            ask()
        finally:
            os._exit(0)
    wait_until(child.read_text)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    wait_until(lambda: gone(int(child.read_text())))


def end_to_end() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("behaviour", ["sleep 1000", "exec >&-; sleep 1000"])
def test_nobody_waits_for_ever(askpass: Person, behaviour: str) -> None:
    askpass.file("behaviour", f"echo $$ >child; {behaviour}\n")
    with pytest.raises(Unanswered, match="in time"):
        ask(seconds=3)
    assert gone(int((askpass.home / "child").read_text()))


def test_a_client_that_only_stops_sending_still_waits(askpass: Person) -> None:
    askpass.file("behaviour", "true\n")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        confirm("Allow?", Patience((ours.fileno(),)))


def test_the_job_asks_as_ssh_agent_does_and_more(askpass: Person) -> None:
    askpass.file("behaviour", "exit $(cat code)\n")
    askpass.file("code", "0")
    asked = askpass.home / "asked"
    with ssh_agent(askpass) as path:
        askpass.run("ssh-add", "-T", "key", SSH_AUTH_SOCK=str(path))
    theirs = asked.read_text()
    asked.unlink()
    fingerprint = theirs.split()[-1].removesuffix(".")
    asker = ClientProcess(os.getpid(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    question = Ask(worded(Question("my key", fingerprint, asker, (), Purpose.UNKNOWN, "")).prompt)
    kept, answer = os.pipe()
    assert job(question, (answer,)) == Done()
    assert asked.read_text().startswith(theirs)
    assert "WARNING: not an ssh login" in asked.read_text()
    askpass.file("code", "1")
    refused = job(question, (answer,))
    assert isinstance(refused, Refused)
    assert "the user said no" in refused.reason
    os.close(kept)
    refused = job(question, (answer,))
    assert isinstance(refused, Refused)
    assert "went away" in refused.reason
    os.close(answer)


def test_a_secret_is_the_first_line(askpass: Person) -> None:
    askpass.file("behaviour", "printf '12 34\\nmore'\n")
    assert secret("PIN: ") == "12 34"
    assert (askpass.home / "asked").read_text() == ": PIN: \n"


def test_a_notice_stays_as_long_as_it_is_true(askpass: Person) -> None:
    """It is asked to go, and may tidy up."""
    askpass.file(
        "behaviour", "trap 'echo closed >>asked; exit' TERM; while :; do sleep 0.05; done\n"
    )
    asked = askpass.home / "asked"
    with notice("Touch it", "Touched"):
        wait_until(lambda: asked.exists() and asked.read_text())
    assert asked.read_text() == "none: Touch it\nclosed\n"
