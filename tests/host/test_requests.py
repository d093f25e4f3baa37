"""What ssh-agent takes, kagent takes: requests as clients write them, and somewhat otherwise.

Of any kind and in any order they are in test_differential.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kagent.private.keyfile.pem import from_library
from kagent.private.verify import verify
from kagent.protocol.messages import SignResponse, Type, decode
from kagent.protocol.privatekey import PRIVATE_KEY, NamedPrivateKey, RsaPrivateKey
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import MPINT, STRING, TEXT, UINT32
from tests.destinations.agents import SIGNED, AtSocket, Outcome, outcome
from tests.destinations.keys import CERTIFIED, A, B, D, hop
from tests.destinations.proofs import changed, compressed
from tests.destinations.requests import add
from tests.support.frames import ask, frame
from tests.support.programs import Agent, Person, agent

RSA = from_library(rsa.generate_private_key(65537, 1024))


SHORT = replace(A, blob=TEXT.write("ssh-rsa") + MPINT.write(65537) + MPINT.write(2**512 - 1))


def loading(
    key: NamedPrivateKey, *behind: bytes, comment: bytes = b"c", number: int = Type.ADD_IDENTITY
) -> bytes:
    return frame(number, PRIVATE_KEY.write(key), STRING.write(comment), *behind)


def signing(key: NamedPrivateKey, *behind: bytes, flags: int = 0) -> bytes:
    blob, data = STRING.write(key.public_blob), STRING.write(b"data")
    return frame(Type.SIGN_REQUEST, blob, data, UINT32.write(flags), *behind)


@pytest.fixture
def stock(person: Person) -> Iterator[Agent]:
    with agent(person, "ssh-agent") as running:
        yield running


def both(kagent: Agent, stock: Agent, *frames: bytes) -> list[Outcome]:
    """What becomes of the requests, which is the same with both agents."""
    with AtSocket(kagent.connect) as ours, AtSocket(stock.connect) as theirs:
        outcomes = [[outcome(one.ask(0, each)) for each in frames] for one in (ours, theirs)]
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


LIFETIME, CONFIRM = b"\1" + UINT32.write(1000), b"\2"
LIST = Type.REQUEST_IDENTITIES
TAKEN = {
    "a comment with C's end of a string": [loading(RSA, comment=b"c\0"), frame(LIST)],
    "a type with one": [
        frame(
            Type.ADD_IDENTITY,
            PRIVATE_KEY.write(RSA).replace(b"\7ssh-rsa", b"\10ssh-rsa\0", 1),
            STRING.write(b"c"),
        ),
        signing(RSA),
    ],
    "bytes behind a request": [
        loading(RSA),
        frame(LIST, b"more"),
        signing(RSA, b"more"),
        frame(Type.REMOVE_IDENTITY, STRING.write(RSA.public_blob), b"more"),
        frame(LIST),
        frame(Type.REMOVE_ALL_IDENTITIES, b"more"),
        frame(Type.REMOVE_ALL_RSA_IDENTITIES, b"more"),
    ],
    "constraints where there should be none": [loading(RSA, LIFETIME), frame(LIST)],
    "primes the other way round": [
        loading(NamedPrivateKey("ssh-rsa", RSA.key.replace(p=RSA.key.q, q=RSA.key.p))),
        signing(RSA),
    ],
    "a long comment": [loading(RSA, comment=b"x" * 19_000), frame(LIST)],
}
REFUSED_TOO = {
    "a comment with NUL in it": [loading(RSA, comment=b"c\0c"), frame(LIST)],
    "a comment with NUL twice": [loading(RSA, comment=b"c\0\0"), frame(LIST)],
    "a lifetime twice": [loading(RSA, LIFETIME, LIFETIME, number=Type.ADD_ID_CONSTRAINED)],
    "an unknown constraint behind": [loading(RSA, b"\3")],
    "a host with a changed certificate": [add(hop(replace(D, blob=changed(CERTIFIED.blob))))],
    "a host with a compressed point": [add(hop(compressed(B)))],
    "a host with a short RSA key": [add(hop(SHORT))],
    "a host on the way with one": [add(hop(A, origin=SHORT))],
}


@pytest.mark.parametrize("frames", TAKEN.values(), ids=TAKEN)
def test_what_ssh_agent_takes(kagent: Agent, stock: Agent, frames: list[bytes]) -> None:
    assert "refused" not in both(kagent, stock, *frames)


@pytest.mark.parametrize("frames", REFUSED_TOO.values(), ids=REFUSED_TOO)
def test_what_ssh_agent_refuses_too(kagent: Agent, stock: Agent, frames: list[bytes]) -> None:
    assert both(kagent, stock, *frames)[0] == "refused"


def test_constraints_where_there_should_be_none_are_kept(kagent: Agent) -> None:
    with kagent.connect() as stream:
        ask(stream, loading(RSA, CONFIRM))
        assert outcome(ask(stream, signing(RSA))) == "refused"


def test_that_all_was_removed_is_logged_once(kagent: Agent) -> None:
    """Though ssh-add asks for it twice; and also where there was nothing."""
    kagent.person.key("id")
    for number in (1, 2):
        kagent.run("ssh-add", "-q", "id")
        kagent.run("ssh-add", "-D")
        assert kagent.logged().count("all keys were removed") == number
    kagent.run("ssh-add", "-D")
    assert kagent.logged().count("all keys were removed") == 3


def test_a_signature_with_primes_the_other_way_round_is_good(kagent: Agent) -> None:
    assert isinstance(RSA.key, RsaPrivateKey)
    for odd in (RSA.key.replace(p=RSA.key.q, q=RSA.key.p), RSA.key.replace(iqmp=1)):
        with kagent.connect() as stream:
            ask(stream, loading(NamedPrivateKey("ssh-rsa", odd)))
            answer = decode(ask(stream, signing(RSA, flags=2))[4:])
            assert isinstance(answer, SignResponse)
            verify(PublicKey.parse(RSA.public_blob), answer.signature, b"data")


def test_a_flag_that_is_not_known_is_refused(kagent: Agent, stock: Agent) -> None:
    """RFC 9987 section 3.6.1; ssh-agent signs as if it weren't there."""
    outcomes = []
    for one in (stock, kagent):
        with one.connect() as stream:
            ask(stream, loading(RSA))
            outcomes.append(outcome(ask(stream, signing(RSA, flags=9))))
    assert outcomes == [SIGNED, "refused"]
