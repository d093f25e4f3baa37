"""The agent needs no memory of its own: what is in the kernel is all there is."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from threading import Thread

import pytest

from kagent.private.keyfile import parse
from kagent.protocol.messages import SignRequest, encode
from tests.kernel import keys
from tests.support.frames import ask
from tests.support.programs import SECONDS, Agent, Person, agent


def certified(person: Person, path: Path) -> Path:
    """A copy of the key with a certificate beside it."""
    copy = person.file(path.name, path)
    public = person.file(f"{path.name}.pub", path.with_suffix(".pub"))
    authority = person.home / "ca"
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority)
    person.run("ssh-keygen", "-q", "-s", authority, "-I", "id", "-n", person.name, public)
    return copy


@pytest.mark.distribution
def test_killed_in_the_middle_of_work(person: Person) -> None:
    """Comments, certificates and order are as before; what had constraints has ended."""
    path = certified(person, keys.rsa(2048, 0))
    constrained = person.file("constrained", keys.rsa(2048, 1))
    blob = parse(path.read_bytes())[0].public_blob
    with agent(person) as first:
        first.run("ssh-add", person.file("first", keys.rsa(3072)))
        first.run("ssh-add", path)
        listed = first.run("ssh-add", "-L").stdout
        assert [line.split()[0] for line in listed.splitlines()] == [
            "ssh-rsa",
            "ssh-rsa",
            "ssh-rsa-cert-v01@openssh.com",
        ]
        first.run("ssh-add", "-c", constrained)
        busy = [Thread(target=sign_on, args=(first, blob)) for _ in range(4)]
        for thread in busy:
            thread.start()
        os.kill(first.keeper, signal.SIGKILL)
        for thread in busy:
            thread.join()
    with agent(person) as second:
        assert second.run("ssh-add", "-L").stdout == listed
        for number, line in enumerate(listed.splitlines(keepends=True)):
            second.run("ssh-add", "-T", person.file(f"{number}.pub", line))


# One whose records say other things.
OTHER_VERSION = """\
from kagent.custody import identity
identity._VERSION += 1
identity.Identity._defaults["version"] += 1
"""


@pytest.mark.parametrize("later", ["first", "second"])
def test_a_record_of_another_version(person: Person, later: str) -> None:
    """Of an older one and of a newer: the key isn't listed, the log says why, and what helps."""
    path = person.file("key", keys.rsa(2048))
    public = person.file("key.pub", keys.rsa(2048).with_suffix(".pub"))
    changed = person.changed_kagent(OTHER_VERSION)
    one, other = (changed, {}) if later == "first" else ({}, changed)
    with agent(person, env=one) as first:
        first.run("ssh-add", path)
    with agent(person, env=other) as second:
        told = second.run("ssh-add", "-l", check=False)
        assert told.stdout == "The agent has no identities.\n"
        assert second.run("ssh-add", "-T", public, check=False).returncode
        reason = r"its record is of version \d, and this kagent reads version \d: to use"
        assert re.search(reason, second.logged())
        second.run("ssh-add", path)
        second.run("ssh-add", "-T", public)


def sign_on(kagent: Agent, blob: bytes) -> None:
    """Ask for signatures until the agent ends."""
    try:
        with kagent.connect() as stream:
            while ask(stream, encode(SignRequest(blob, b"data", 2))):
                pass
    except OSError:
        pass


def test_two_agents_in_one_session(person: Person) -> None:
    """They have in common what the kernel signs with, and nothing else; none harms the other's.

    As kagent(7) says, WHAT SURVIVES WHAT: what is in common outlives each of them, and all of an
    agent that is locked ends with it.
    """
    common = [person.file(f"rsa{number}", keys.rsa(2048, number)) for number in range(3)]
    for number, path in enumerate(common):
        person.file(f"{path.name}.pub", keys.rsa(2048, number).with_suffix(".pub"))
    sealed = [person.key(name) for name in ("a", "b")]
    askpass = person.file("askpass", "#!/bin/sh\necho secret\n", 0o700)
    secret = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    with agent(person) as one, agent(person) as other:

        def have(running: Agent, *paths: Path) -> None:
            """Whether it lists these, and signs with these alone."""
            listed = running.run("ssh-add", "-l", check=False).stdout
            assert listed.count("SHA256") == len(paths)
            for path in (*common, *sealed):
                signed = running.run("ssh-add", "-T", f"{path}.pub", check=False)
                assert (signed.returncode == 0) == (path in paths), path.name

        one.run("ssh-add", "-q", common[0], sealed[0])
        other.run("ssh-add", "-q", common[1], sealed[1], common[2])
        have(one, *common, sealed[0])
        have(other, *common, sealed[1])
        one.run("ssh-add", "-x", **secret)
        have(one)
        have(other, sealed[1])
        one.run("ssh-add", "-X", **secret)
        have(one, *common, sealed[0])
        have(other, *common, sealed[1])
        one.run("ssh-add", "-d", f"{common[1]}.pub")
        have(other, common[0], common[2], sealed[1])
        os.kill(one.keeper, signal.SIGKILL)
        have(other, common[0], common[2], sealed[1])
        with agent(person) as third:
            have(third, common[0], common[2])
            other.run("kagent", "-k", SSH_AGENT_PID=str(other.process.pid))
            other.process.wait(SECONDS)
            have(third, common[0], common[2])
            third.run("ssh-add", "-x", **secret)
            os.kill(third.keeper, signal.SIGKILL)
            third.process.wait(SECONDS)
        with agent(person) as fourth:
            have(fourth)
