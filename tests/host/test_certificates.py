"""Certificates with stock ssh-agent and kagent: what one refuses, the other does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.private.keyfile import parse
from kagent.protocol.constraints import SkProvider
from kagent.protocol.messages import AddIdConstrained, AddIdentity, Failure, Success, encode
from kagent.protocol.privatekey import NamedPrivateKey
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import STRING
from tests.support.certificates import GOOD, ODD, WRONG
from tests.support.frames import ask
from tests.support.programs import Agent, Person, agent
from tests.support.tokens import PROVIDER

SIZES = {"rsa": "2048", "ecdsa": "384"}


@pytest.fixture
def agents(person: Person) -> Iterator[tuple[Agent, Agent]]:
    providers = "-P*"
    with agent(person, "ssh-agent", providers) as one, agent(person, "kagent", providers) as other:
        yield one, other


def both_take(agents: tuple[Agent, Agent], key: NamedPrivateKey) -> bool:
    """Whether the agents take the key; they must agree."""
    of_token = key.type.startswith("sk-")
    constrained = AddIdConstrained(key, "key", (SkProvider(PROVIDER),))
    request = encode(constrained if of_token else AddIdentity(key, "key"))
    answers = []
    for one in agents:
        with one.connect() as stream:
            answers.append(ask(stream, request))
    theirs, ours = answers
    assert theirs in (encode(Success()), encode(Failure()))
    assert ours == theirs
    return theirs == encode(Success())


def keygen(person: Person, *words: str | Path) -> None:
    person.run("ssh-keygen", "-q", *words, SSH_SK_PROVIDER=PROVIDER)


def certified(person: Person, kind: str, authority: str) -> NamedPrivateKey:
    """A new key, with a certificate of a new authority."""
    for name, type in (("key", kind), ("ca", authority)):
        size = ("-b", SIZES[type]) if type in SIZES else ()
        keygen(person, "-t", type, *size, "-N", "", "-f", person.home / name)
    keygen(person, "-s", "ca", "-I", "me", "-n", "root", "key.pub")
    certificate, _ = parse_line((person.home / "key-cert.pub").read_text())
    return parse((person.home / "key").read_bytes())[0].certified(certificate)


def with_blob(key: NamedPrivateKey, blob: bytes) -> NamedPrivateKey:
    """The same key with another certificate."""
    return NamedPrivateKey(key.type, key.key.replace(certificate=blob))


def junk_signature(blob: bytes) -> bytes:
    """The certificate with a signature of the right form and length that nobody has made."""
    certificate = PublicKey.parse(blob).certificate
    assert certificate
    signature = certificate.signature
    body = blob[: -len(STRING.write(signature))]
    # Of r and s, or of the one number, not the first byte, which has the sign.
    return body + STRING.write(signature[:-12] + bytes(byte ^ 1 for byte in signature[-12:]))


@pytest.mark.parametrize(
    ("kind", "authority"),
    [
        ("rsa", "ed25519"),
        ("ecdsa", "ecdsa"),
        ("ed25519", "rsa"),
        ("ed25519", "ecdsa-sk"),
        ("rsa", "ed25519-sk"),
        ("ed25519-sk", "ed25519"),
        ("ecdsa-sk", "rsa"),
    ],
)
def test_a_signature_that_nobody_has_made(
    agents: tuple[Agent, Agent], person: Person, kind: str, authority: str
) -> None:
    good = certified(person, kind, authority)
    assert not both_take(agents, with_blob(good, junk_signature(good.public_blob)))
    later = bytearray(good.public_blob)
    valid_until = later.index(bytes.fromhex("ffffffffffffffff"))
    later[valid_until] ^= 1
    assert not both_take(agents, with_blob(good, bytes(later)))
    for one in agents:
        assert "no identities" in one.run("ssh-add", "-l", check=False).stdout
    assert both_take(agents, good)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_although_it_is_signed(agents: tuple[Agent, Agent], what: str) -> None:
    assert not both_take(agents, WRONG[what].named)
    assert both_take(agents, GOOD.named)


def test_what_is_unusual(agents: tuple[Agent, Agent]) -> None:
    for what, certificate in ODD.items():
        assert both_take(agents, certificate.named), what
