"""Keys that come from sources: who watches them on their way, stops what brings them, or lies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.custody.identity import Custody, Identity
from kagent.protocol.constraints import IdleLifetime, Lifetime
from kagent.protocol.messages import SignRequest, encode
from kagent.protocol.publickey import PublicKey
from tests.hostile.asking import Client, Pair
from tests.hostile.conftest import settle
from tests.hostile.people import Login, attack, finish
from tests.hostile.test_keeper import ANSWERED, SEND
from tests.support.frames import FAILURE, answer, ask, explained
from tests.support.injection import python_in
from tests.support.programs import Agent, Person, agent, children_of, wait_until

PASSPHRASE = "correct horse battery"
# Says what is asked, and its pid; and the passphrase when the test wants it to.
ASKPASS = f"""\
#!/bin/sh
cd "${{0%/*}}"
echo $$ >asking
while ! [ -e answer ]; do sleep 0.02; done
echo '{PASSPHRASE}'
"""


@pytest.fixture
def pair() -> Pair:
    return Pair.new()


@pytest.fixture
def kagent(person: Person, pair: Pair) -> Iterator[Agent]:
    """One that has the key's passphrase asked for."""
    made = person.file("made", pair.file)
    os.chown(made, 0, 0)  # ssh-keygen wants to know who it is
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", made], check=True)
    key = person.file("key", made)
    public = PublicKey.parse(pair.blob).line()
    person.run("mkdir", "-p", ".config/kagent")
    entry = f'[[identity]]\npublic = "{public}"\nfile = "{key}"\nidle = "1h"\n'
    person.file(".config/kagent/kagent.toml", entry)
    program = person.file("askpass", ASKPASS, mode=0o700)
    env = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    with agent(person, env=env) as running:
        settle(running)
        yield running


def named(kagent: Agent, name: str) -> list[int]:
    """Its processes of that name."""
    found = []
    for pid in kagent.children:
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def asking(kagent: Agent) -> int:
    """The ssh-askpass that waits for the user."""
    place = kagent.person.home / "asking"
    wait_until(lambda: place.exists() and place.read_text().endswith("\n"))
    return int(place.read_text())


def request(pair: Pair) -> bytes:
    return encode(SignRequest(pair.blob, b"data", 0))


def test_nobody_looks_into_who_brings_it(kagent: Agent, person: Person, pair: Pair) -> None:
    """As long as the user is asked, and then; ssh-askpass itself is the user's own program."""
    with (
        attack(person, Login.SAME, "inspect", kagent.keeper, "kagent-source") as attacker,
        kagent.connect() as stream,
    ):
        stream.sendall(request(pair))
        asking(kagent)
        time.sleep(1)
        person.file("answer", "")
        assert answer(stream) != FAILURE
        told = finish(attacker)
    processes, *got = told.got
    # What it starts is called so as well for a moment.
    assert processes in ("1 processes", "2 processes")
    assert got == []


def test_the_answer_can_not_be_opened_anew(kagent: Agent, person: Person, pair: Pair) -> None:
    """As a pipe can: the control."""
    attempt = (
        "import os, sys\n"
        "try:\n    os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)\n"
        "except OSError as error:\n    print(error.errno)\n"
    )
    with kagent.connect() as stream:
        stream.sendall(request(pair))
        place = f"/proc/{asking(kagent)}/fd/1"
        told = person.run("python3", "-c", attempt, place).stdout
        piped = person.run("sh", "-c", f"python3 -c '{attempt}' /proc/self/fd/1 | cat").stdout
        person.file("answer", "")
        assert answer(stream) != FAILURE
    assert told.strip() == str(errno.ENXIO)
    assert piped == ""


def test_nothing_of_it_stays(kagent: Agent, person: Person, pair: Pair) -> None:
    """In the memory of any process that lives on: neither the passphrase nor the key."""
    person.file("answer", "")
    with kagent.connect() as stream:
        assert ask(stream, request(pair)) != FAILURE
        wait_until(lambda: not named(kagent, "kagent-source") and not named(kagent, "kagent-load"))
        time.sleep(0.5)  # a sign worker's burst
        pids = {kagent.process.pid, kagent.keeper, *kagent.children, *kagent.lookouts}
        found = [
            pid for pid in pids for secret in (PASSPHRASE.encode(), pair.secret) if has(pid, secret)
        ]
    assert found == []
    assert has(os.getpid(), PASSPHRASE.encode())


def has(pid: int, secret: bytes) -> bool:
    """Whether that process has it in memory that it can write to."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, access, *_ = line.split()
            start, end = (int(one, 16) for one in addresses.split("-"))
            if not access.startswith("rw") or "[v" in line:
                continue
            memory.seek(start)
            try:
                if secret in memory.read(end - start):
                    return True
            except OSError:
                continue
    return False


@pytest.mark.parametrize("name", ["kagent-source", "askpass"])
def test_killed_while_the_user_is_asked(
    kagent: Agent, person: Person, pair: Pair, name: str
) -> None:
    """It is a refusal, and nothing of it runs on; later the user is asked again."""
    with kagent.connect() as stream:
        stream.sendall(request(pair))
        question = asking(kagent)
        victims = named(kagent, name) or [question]
        os.kill(victims[0], signal.SIGKILL)
        assert answer(stream) == FAILURE
        wait_until(lambda: not Path(f"/proc/{question}").exists())
        assert not named(kagent, "kagent-source")
        assert ask(stream, request(pair)) == FAILURE
        assert explained(stream).startswith("a moment ago: ")
        person.file("answer", "")
        wait_until(lambda: ask(stream, request(pair)) != FAILURE)


def test_the_front_is_killed_while_the_user_is_asked(
    kagent: Agent, person: Person, pair: Pair
) -> None:
    """The question goes, nothing is held, and the next front has it asked anew."""
    with kagent.connect() as stream:
        stream.sendall(request(pair))
        question = asking(kagent)
        os.kill(kagent.front, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{question}").exists())
    person.file("answer", "")
    with kagent.connect() as stream:
        assert ask(stream, request(pair)) != FAILURE


def test_an_idle_end_is_not_put_off_beyond_the_lifetime(kagent: Agent) -> None:
    """By a front that was taken over, and says that the key is used all the time."""
    pair = Pair.new()
    identity = Identity(pair.blob, "any", Custody.SEALED)
    job = f"Kind.USED, description={identity.description!r}"
    sent = SEND.format(before="", job=job, record=b"", after="")
    with Client(kagent.socket) as client:
        assert client.add(pair, Lifetime(4), IdleLifetime(2))
        for _ in range(3):
            python_in(kagent.front, sent)
            time.sleep(1)
        time.sleep(2)
        assert not client.signs(pair)


def test_a_front_that_lies_gets_no_other_key(kagent: Agent, person: Person) -> None:
    """What is no entry's isn't fetched, whatever the front asks for."""
    blob = repr(Pair.new().blob).replace("{", "{{").replace("}", "}}")
    code = (
        "from kagent.jobs.questions import FromSource\n"
        "ours, theirs = socket.socketpair()\n"
        "client, _ = socket.socketpair()\n"
        f"body = FromSource({blob}, 'lies', False).write()\n"
        "ours.send(body)\n"
    )
    lie = SEND.replace("[workers]", f"{code}[workers]", 1).replace(
        "[writing])", "[theirs.fileno(), client.fileno(), writing])\nos.close(writing)"
    )
    job = "Kind.SOURCE, number=1, body_length=len(body)"
    python_in(kagent.front, lie.format(before="", job=job, record=b"", after=ANSWERED))
    wait_until(lambda: "the keeper answers" in kagent.logged())
    assert "was taken away meanwhile" in kagent.logged()
    assert not (person.home / "asking").exists()
    assert children_of(kagent.keeper)
