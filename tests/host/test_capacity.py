"""As many keys as people have, for an ordinary user whose quota nobody has raised."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    SSHCertificateBuilder,
    SSHCertificateType,
)

from kagent.keyctl import Quota
from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import AddIdentity, RequestIdentities, Success
from kagent.protocol.publickey import parse_line
from tests.hostile.asking import Client, Pair
from tests.hostile.people import begin_login, forget, somebody
from tests.support.programs import Person, agent, wait_until

IDENTITIES = 95  # what a stock ssh-agent's answer has room for with such certificates
SEALED = 500


@pytest.fixture
def person(folder: Path) -> Iterator[Person]:
    """An ordinary user, as no other test has."""
    if os.getuid() != 0:
        pytest.skip("only root may be another user")
    someone = somebody("ordinary", folder)
    begin_login(someone)
    yield someone
    forget(someone)


def test_certificates_of_any_type(person: Person) -> None:
    """Each of two kilobytes; a quarter of the quota stays free for other programs."""
    authority = ed25519.Ed25519PrivateKey.generate()
    keys = [
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
    ]
    with agent(person) as kagent, Client(kagent.socket) as client:
        for number in range(IDENTITIES):
            pair = certified(keys[number % 3], authority, number)
            added = client.ask(AddIdentity(pair.private, f"certificate {number}"))
            assert isinstance(added, Success), kagent.logged()
            assert client.signs(pair), kagent.logged()
        assert len(kagent.run("ssh-add", "-l").stdout.splitlines()) == IDENTITIES
        assert used(person) <= 0.8
        assert client.remove_all()
        wait_until(lambda: used(person) < 0.2)


# No kernel signs with such keys: in a booted machine it is the same, and takes two minutes.
@pytest.mark.native
def test_sealed_keys(person: Person) -> None:
    with agent(person) as kagent, Client(kagent.socket) as client:
        pairs = [Pair.new() for _ in range(SEALED)]
        for pair in pairs:
            assert client.add(pair), kagent.logged()
        answer = client.ask(RequestIdentities())
        assert [one.blob for one in answer.identities] == [one.blob for one in pairs]  # type: ignore[union-attr]
        assert client.signs(pairs[0])
        assert client.signs(pairs[-1])
        assert client.remove(pairs[0])
        assert not client.signs(pairs[0])
        assert client.add(pairs[1], Confirm())
        assert client.signs(pairs[2])
        wait_until(lambda: used(person) < 0.15)


def test_an_agent_that_ends_gives_its_quota_back(person: Person) -> None:
    """Before its process is gone, so that the next has room."""
    with agent(person):
        pass
    before = Quota.of(person.uid)
    assert before
    for _ in range(5):
        with agent(person) as kagent, Client(kagent.socket) as client:
            for _ in range(10):
                assert client.add(Pair.rsa(), Confirm())
        after = Quota.of(person.uid)
        assert after
        # But for the sessions of processes that were killed a moment ago: of fifty keys nothing.
        assert after.keys <= before.keys + 25, (before, after)


def used(person: Person) -> float:
    """Which part of their quota."""
    quota = Quota.of(person.uid)
    return quota.used if quota else 0


def certified(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    authority: ed25519.Ed25519PrivateKey,
    serial: int,
) -> Pair:
    """`key` with a certificate of two kilobytes, as no other number has."""
    certificate = (
        SSHCertificateBuilder()
        .public_key(key.public_key())
        .serial(serial)
        .type(SSHCertificateType.USER)
        .key_id(b"x" * 1000)
        .valid_principals([b"principal-%04d" % number for number in range(35)])
        .valid_after(0)
        .valid_before(2**64 - 1)
        .sign(authority)
    )
    public, _ = parse_line(certificate.public_bytes().decode())
    pair = Pair.of(key)
    return replace(pair, private=pair.private.certified(public))
