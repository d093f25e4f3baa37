"""What ssh-agent takes, kagent takes: requests as clients write them, and somewhat otherwise.

The few differences that are meant stand in the README: "Where it differs from ssh-agent".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kagent.private.keyfile.pem import from_library
from kagent.private.verify import verify
from kagent.protocol.messages import SignResponse, Type, decode
from kagent.protocol.privatekey import PRIVATE_KEY, NamedPrivateKey, RsaPrivateKey
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import STRING, UINT32
from tests.destinations.agents import SIGNED, AtSocket, Outcome, outcome
from tests.destinations.keys import CERTIFIED, USERS_KEY, A, hop
from tests.destinations.requests import REMOVE_ALL, add
from tests.support.frames import ask, explained
from tests.support.programs import Agent, Person, agent

RSA = from_library(rsa.generate_private_key(65537, 1024))
KEYS = [
    USERS_KEY.named(),
    CERTIFIED.named().certified(CERTIFIED.public),
    RSA,
    from_library(ec.generate_private_key(ec.SECP256R1())),
    from_library(ec.generate_private_key(ec.SECP521R1())),
]
# Why kagent refuses what ssh-agent takes.
MEANT = ("halves don't fit", "unknown signature flags", "no such key")


def frame(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">IB", 1 + len(body), number) + body


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


BYTES_BEHIND = st.sampled_from([b"", b"", b"", b"\0", bytes(4), LIFETIME, CONFIRM, b"more"])
COMMENTS = st.sampled_from([b"c", b"", b"c\0", b"c\0c", b"\0", b"\xff\xfe", b"a\nb"])
CONSTRAINTS = st.lists(
    st.sampled_from(
        [LIFETIME, CONFIRM, add(hop(A)).partition(b"key")[2], b"\3", b"\xff" + bytes(4)]
    )
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request of any kind, and some of them damaged."""
    key, behind = draw(st.sampled_from(KEYS)), draw(BYTES_BEHIND)
    blob = STRING.write(key.public_blob)
    made = draw(
        st.sampled_from(
            [
                loading(key, behind, comment=draw(COMMENTS)),
                loading(
                    key,
                    *draw(CONSTRAINTS),
                    behind,
                    comment=draw(COMMENTS),
                    number=Type.ADD_ID_CONSTRAINED,
                ),
                signing(key, behind, flags=draw(st.sampled_from([0, 2, 4, 6]))),
                frame(LIST, behind),
                frame(Type.REMOVE_IDENTITY, blob, behind),
                frame(Type.REMOVE_ALL_IDENTITIES, behind),
                frame(draw(st.sampled_from([0, 1, 5, 10, 20, 21, 26, 30, 255])), behind),
            ]
        )
    )
    body = bytearray(made[5:])
    if body and draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(body) - 1))
        if draw(st.booleans()):
            del body[place:]
        else:
            body[place] = draw(st.integers(0, 255))
    return frame(made[4], bytes(body))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests(), min_size=1, max_size=12))
def test_requests_somewhat_otherwise(kagent: Agent, stock: Agent, frames: list[bytes]) -> None:
    with kagent.connect() as ours, stock.connect() as theirs:
        for stream in (ours, theirs):
            ask(stream, REMOVE_ALL)
        for one in frames:
            told, expected = (outcome(ask(stream, one)) for stream in (ours, theirs))
            if told != expected:
                assert told == "refused"
                assert any(reason in explained(ours) for reason in MEANT), explained(ours)
                return  # from here on they hold different keys
            assert outcome(ask(ours, frame(LIST))) == outcome(ask(theirs, frame(LIST)))
