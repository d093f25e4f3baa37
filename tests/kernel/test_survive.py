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
from tests.support.programs import Agent, Person, agent


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
