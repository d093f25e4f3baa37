"""Destination constraints with real ssh and sshd: both agents let the same logins through."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import AddIdConstrained, encode
from tests.destinations.agents import DONE, REFUSED, SIGNED, outcome
from tests.destinations.keys import SECOND, UNKNOWN, A, hop
from tests.destinations.requests import add, bind, login, sign
from tests.support.frames import ask
from tests.support.programs import Agent, Person, Sshd, agent, sshd

BOTH = ("ssh-agent", "kagent")


@pytest.fixture
def servers(person: Person, folder: Path) -> Iterator[tuple[Sshd, Sshd]]:
    """Two hosts that let the person in with `key`, and know each other."""
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    authorized = (person.home / "key.pub").read_text()
    with (
        sshd(person, folder / "one", authorized) as one,
        sshd(person, folder / "two", authorized) as two,
    ):
        known = [(server.folder / "known_hosts").read_text() for server in (one, two)]
        person.file("known_hosts", "".join(known))
        yield one, two


def name(server: Sshd) -> str:
    return f"[127.0.0.1]:{server.port}"


def logins(running: Agent, one: Sshd, two: Sshd) -> list[bool]:
    """To the first host, to the second, and through the first to the second."""
    person = running.person
    second = shlex.join([*two.ssh(person), "true"])
    commands = (
        [*one.ssh(person), "true"],
        [*two.ssh(person), "true"],
        [*one.ssh(person, "-A"), second],
    )
    return [running.run(*command, check=False).returncode == 0 for command in commands]


@pytest.mark.parametrize("program", BOTH)
@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ([], [True, True, True]),
        (["{one}"], [True, False, False]),
        (["{two}"], [False, True, False]),
        (["{one}", "{one}>{two}"], [True, False, True]),
        (["nobody@{one}", "{two}"], [False, True, False]),
    ],
)
def test_logins(
    person: Person,
    servers: tuple[Sshd, Sshd],
    program: str,
    constraints: list[str],
    expected: list[bool],
) -> None:
    one, two = servers
    words = [
        word
        for constraint in constraints
        for word in ("-h", constraint.format(one=name(one), two=name(two)))
    ]
    with agent(person, program) as running:
        running.run("ssh-add", "-H", "known_hosts", *words, "key")
        assert logins(running, one, two) == expected


def test_what_a_host_sees_of_the_agent(person: Person, servers: tuple[Sshd, Sshd]) -> None:
    """Of a key that may not be used from there, nothing; and it can't remove it either."""
    one, _ = servers
    seen = []
    for program in BOTH:
        with agent(person, program) as running:
            running.run("ssh-add", "-H", "known_hosts", "-h", name(one), "key")
            for command in ("ssh-add -l", "ssh-add -T key.pub", "ssh-add -d key.pub"):
                remote = f"cd {shlex.quote(str(person.home))}; {command}"
                told = running.run(*one.ssh(person, "-A"), remote, check=False)
                seen.append((told.returncode, told.stdout))
            assert running.run("ssh-add", "-l").returncode == 0
    assert seen[:3] == seen[3:]
    assert seen[0] == (1, "The agent has no identities.\n")


def test_a_constrained_key_signs_nothing_but_logins(
    kagent: Agent, servers: tuple[Sshd, Sshd]
) -> None:
    one, _ = servers
    kagent.run("ssh-add", "-H", "known_hosts", "-h", name(one), "key")
    told = kagent.run("ssh-keygen", "-Y", "sign", "-f", "key.pub", "-n", "x", check=False)
    assert told.returncode != 0
    assert "ssh has named none" in kagent.logged()


def asking(person: Person) -> dict[str, str]:
    """The variables of an ssh-askpass that writes into `asked`, and exits as `answer` says."""
    script = '#!/bin/sh\nprintf "%s\\n" "$1" >>asked\nexit $(cat answer)\n'
    person.file("asked", "")
    person.file("answer", "0")
    program = person.file("askpass", script, mode=0o700)
    return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}


def test_a_host_key_of_an_unknown_type(person: Person) -> None:
    """Its login is one, and is asked for as such; a key for it and others is taken."""
    confirmed = encode(AddIdConstrained(SECOND.named(), SECOND.name, (Confirm(),)))
    with agent(person, env=asking(person)) as running, running.connect() as stream:
        assert outcome(ask(stream, add(hop(UNKNOWN), hop(A)))) == DONE
        assert outcome(ask(stream, confirmed)) == DONE
        assert outcome(ask(stream, bind(UNKNOWN))) == REFUSED
        assert outcome(ask(stream, sign(login(UNKNOWN)))) == REFUSED
        assert outcome(ask(stream, sign(login(UNKNOWN, key=SECOND), SECOND))) == SIGNED
    asked = (person.home / "asked").read_text()
    assert 'Login as "root" on an unknown host with a key of an unknown type.' in asked


def test_asking_only_what_comes_from_afar(person: Person, servers: tuple[Sshd, Sshd]) -> None:
    """kagent-add --confirm-forwarded; the question names the hosts as the user knows them."""
    one, two = servers
    env = asking(person)
    asked, answer = person.home / "asked", person.home / "answer"
    (person.home / ".ssh").mkdir(mode=0o700)
    person.file(".ssh/known_hosts", person.home / "known_hosts")
    with agent(person, env=env) as running:
        running.run("kagent-add", "--confirm-forwarded", "key")
        assert running.run(*two.ssh(person), "true").returncode == 0
        assert asked.read_text() == ""
        through = [*one.ssh(person, "-A"), shlex.join([*two.ssh(person), "true"])]
        assert running.run(*through).returncode == 0
        told = asked.read_text()
        assert told.startswith("Allow use of key ")
        assert f'Login as "{person.name}" on {name(two)}.' in told
        assert f"FORWARDED: the request comes from {name(one)}." in told
        assert "Brought by ssh ← " in told
        answer.write_text("1")
        assert running.run(*through, check=False).returncode == 255
        assert "forwarded=yes" in running.logged()
        assert f"{name(one)} → {name(two)}" in running.logged()
