"""A token's PIN and its session are the agent's alone; SoftHSM is the token."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kagent.custody.identity import description_of
from kagent.protocol.messages import AddSmartcardKey, Failure, SignRequest, SignResponse, Success
from kagent.protocol.publickey import parse_line
from tests.hostile.asking import Client, Pair
from tests.hostile.conftest import settle
from tests.hostile.people import Login, attack, finish
from tests.support.frames import explained
from tests.support.injection import python_in
from tests.support.programs import Agent, Person, agent, children_of, wait_until
from tests.support.softhsm import LIBRARY, PIN, REAL_HELPER, soft_token


def family(pid: int) -> list[int]:
    return [pid, *(one for child in children_of(pid) for one in family(child))]


def use(running: Agent) -> None:
    """Load its key with the PIN, and have it sign."""
    key, _ = parse_line((running.person.home / "ecdsa.pub").read_text())
    with Client(running.socket) as client:
        assert isinstance(client.ask(AddSmartcardKey(str(LIBRARY), PIN)), Success)
        assert isinstance(client.ask(SignRequest(key.blob, b"data", 0)), SignResponse)


def has_in_memory(pid: int, secret: bytes) -> bool:
    """As root sees it."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            start, end = (int(one, 16) for one in line.split()[0].split("-"))
            if " rw" not in line:
                continue
            memory.seek(start)
            if secret in memory.read(end - start):
                return True
    return False


@pytest.mark.parametrize("hidden", [True, False], ids=["program", "script"])
@pytest.mark.parametrize("login", list(Login))
def test_the_helper_can_not_be_looked_into(person: Person, login: Login, hidden: bool) -> None:
    """Nor its pipe be taken, nor a process between: while the PIN comes, and later.

    The control is a helper that is a script, which can't be hidden.
    """
    token = soft_token(person, "ecdsa")
    env = dict(token.env)
    if not hidden:
        script = person.file("helper", f"#!/bin/sh\n{REAL_HELPER}\n", 0o700)
        env["SSH_PKCS11_HELPER"] = str(script)
    with agent(person, "kagent", env=env) as running:
        settle(running)
        with attack(person, login, "inspect", running.keeper) as attacker:
            for _ in range(3):
                use(running)
            told = finish(attacker)
    processes, *got = told.got
    print(told.tries, processes)
    assert bool(got) != hidden, got


def test_the_pin_stays_nowhere(person: Person) -> None:
    """Not in keeper, front or token process, nor in what is told of them or logged."""
    token = soft_token(person, "ecdsa")
    secret = PIN.encode()
    with agent(person, "kagent", "-d", env=token.env) as running:
        settle(running)
        for _ in range(2):
            use(running)
        processes = family(running.keeper)
        names = {Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in processes}
        assert {"kagent-keeper", "kagent-front", "kagent-token"} <= names.keys()
        for name, pid in names.items():
            place = Path(f"/proc/{pid}")
            try:
                shown = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
                found = name.startswith("kagent-") and has_in_memory(pid, secret)
            except (FileNotFoundError, ProcessLookupError):
                continue  # a worker for one job
            assert secret not in shown
            assert not found, name
        assert has_in_memory(os.getpid(), secret), "the control"
        assert PIN not in running.logged()
        # The helper's lines are there, where it could have told of it.
        assert re.search("process_add|add /usr/lib", running.logged())


# As a front that was taken over could.
ASK = """
import gc, os, socket
from kagent import log
from kagent.jobs.jobs import Job, Kind, unpack_answer
from kagent.jobs.questions import TokenSignature
[workers] = [one for one in gc.get_objects() if type(one).__name__ == "Workers"]
reading, writing = os.pipe()
ours, theirs = socket.socketpair()
body = TokenSignature({blob!r}, {algorithm!r}, b"data").write()
ours.send(body)
job = Job(Kind.TOKEN, body_length=len(body), description={description!r})
socket.send_fds(workers._keeper._socket, [job.pack()], [theirs.fileno(), writing])
os.close(writing)
log.info(f"the answer is {{type(unpack_answer(os.read(reading, 10000))).__name__}}")
"""


@pytest.mark.parametrize("name", ["ecdsa", "rsa"])
def test_a_removed_key_does_not_sign(person: Person, name: str) -> None:
    """Where another of its token is held, and is named in its place."""
    token = soft_token(person, "rsa", "ecdsa")
    held, _ = parse_line((person.home / "ecdsa.pub").read_text())
    asked, _ = parse_line((person.home / f"{name}.pub").read_text())
    algorithm = {"ecdsa": "ecdsa-sha2-nistp256", "rsa": "rsa-sha2-256"}[name]
    description = description_of(held.blob)
    with agent(person, "kagent", env=token.env) as running:
        settle(running)
        use(running)
        running.run("ssh-add", "-q", "-d", "rsa.pub")
        code = ASK.format(blob=asked.blob, algorithm=algorithm, description=description)
        python_in(running.front, code)
        wait_until(lambda: "the answer is" in running.logged())
        told = "Signed" if name == "ecdsa" else "Refused"
        assert f"the answer is {told}" in running.logged()


def test_without_means(person: Person) -> None:
    """No helper is started that could be looked into because something was taken away."""
    token = soft_token(person, "ecdsa")
    with agent(person, "kagent", env=token.env) as running, Client(running.socket) as client:
        settle(running)
        assert client.add(Pair.new())  # by then all is prepared, for which a file is written
        with attack(person, Login.SAME, "limit", running.keeper, "FSIZE") as attacker:
            assert isinstance(client.ask(AddSmartcardKey(str(LIBRARY), PIN)), Failure)
            finish(attacker)
        # Nor is anything logged to a file.
        assert "ssh-pkcs11-helper: File too large" in explained(client.stream)
