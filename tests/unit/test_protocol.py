"""The codec: what is written is read back, and nothing hostile gets more than a ProtocolError."""

from __future__ import annotations

import tracemalloc
import typing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kagent.protocol import constraints, messages, privatekey, wire
from kagent.protocol.messages import Message, decode, encode
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import STRING, TEXT, ProtocolError, Record

BLOBS = st.binary(max_size=100)
TEXTS = st.binary(max_size=60).map(
    lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)
BY_CODEC = {
    wire.STRING: BLOBS,
    wire.REST: BLOBS,
    wire.TEXT: TEXTS,
    wire.BOOLEAN: st.booleans(),
    wire.BYTE: st.integers(0, 2**8 - 1),
    wire.UINT32: st.integers(0, 2**32 - 1),
    wire.UINT64: st.integers(0, 2**64 - 1),
    wire.MPINT: st.integers(min_value=0, max_value=2**600),
}


def built(cls: type[Record], **given: st.SearchStrategy) -> st.SearchStrategy:
    """Values of a record, from its layout where nothing is given."""
    fields = {
        name: given[name] if name in given else BY_CODEC[codec]
        for name, codec in cls.layout.items()
    }
    return st.builds(cls, **fields)


@st.composite
def private_keys(draw: st.DrawFn) -> privatekey.NamedPrivateKey:
    cls = draw(st.sampled_from(typing.get_args(privatekey.PrivateKey)))
    name = draw(st.sampled_from(cls.types))
    key = draw(built(cls))
    if hasattr(key, "curve"):
        curve = next(word for word in name.split("@")[0].split("-") if word.startswith("nistp"))
        key = key.replace(curve=curve)
    return privatekey.NamedPrivateKey(name, key)


HOST_KEYS = st.lists(
    st.builds(
        constraints.HostKey,
        st.binary(min_size=32, max_size=32).map(
            lambda point: PublicKey.parse(TEXT.write("ssh-ed25519") + STRING.write(point))
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
HOSTS = TEXTS.filter(bool)
HERE = st.just(constraints.Hop("", ""))
ORIGINS = st.builds(constraints.Hop, st.just(""), HOSTS, keys=HOST_KEYS)
TARGETS = st.builds(constraints.Hop, TEXTS, HOSTS, keys=HOST_KEYS)
PERMITTED = st.lists(
    st.builds(constraints.PermittedHop, HERE | ORIGINS, TARGETS), min_size=1, max_size=3
)
CONSTRAINTS = st.lists(
    st.one_of(
        built(constraints.Lifetime),
        built(constraints.Confirm),
        built(constraints.RestrictDestination, hops=PERMITTED.map(tuple)),
        built(constraints.SkProvider),
        built(
            constraints.AssociatedCertificates,
            certificates=st.lists(BLOBS, max_size=3).map(tuple),
        ),
        built(constraints.RequireCustody, custody=st.sampled_from(constraints.CUSTODIES)),
        built(constraints.ConfirmForwarded),
    ),
    unique_by=type,
    max_size=7,
).map(tuple)
IDENTITIES = st.lists(built(messages.ListedKey), max_size=4).map(tuple)
MESSAGES = st.sampled_from(Message.__subclasses__()).flatmap(
    lambda cls: built(cls, key=private_keys(), constraints=CONSTRAINTS, identities=IDENTITIES)
)


@given(MESSAGES)
def test_what_is_encoded_decodes_to_the_same(message: Message) -> None:
    frame = encode(message)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert decode(frame[4:]) == message


def test_every_message_number_of_openssh_has_its_class() -> None:
    assert {cls.type for cls in Message.__subclasses__()} == set(messages.Type)


@given(built(messages.SessionBind))
def test_what_is_bound_is_read_as_it_was_written(bind: messages.SessionBind) -> None:
    assert messages.SessionBind.parse(bind.write()) == bind
    for damaged in (bind.write()[:-1], bind.write() + b"\0"):
        with pytest.raises(ProtocolError):
            messages.SessionBind.parse(damaged)


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x0c\xff\xff\xff\xff")
def test_rubbish_is_a_message_or_a_protocol_error(payload: bytes) -> None:
    try:
        message = decode(payload)
    except ProtocolError:
        return
    assert isinstance(message, Message)


@given(MESSAGES, st.data())
def test_damage_is_a_message_or_a_protocol_error(message: Message, data: st.DataObject) -> None:
    payload = bytearray(encode(message)[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(decode(bytes(payload)), Message)
    except ProtocolError:
        pass


@given(MESSAGES, st.data())
def test_a_truncated_message_is_refused_or_shorter(message: Message, data: st.DataObject) -> None:
    payload = encode(message)[4:]
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    try:
        assert decode(cut) != message
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "payload",
    [
        b"\x0c" + b"\xff" * 4,  # four billion identities
        b"\x0d" + b"\xff" * 4,  # a blob of 4 GiB
        b"\x11" + b"\0\0\0\x07ssh-rsa" + b"\x7f\xff\xff\xff",
        b"\x0c\x00\x00\x10\x00" + b"\0" * 1000,  # a count that the bytes can't hold
    ],
)
def test_a_lie_about_a_length_allocates_nothing(payload: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(payload)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_unknown_constraint_is_an_error_and_not_dropped() -> None:
    key = privatekey.NamedPrivateKey(
        "ssh-ed25519", privatekey.Ed25519PrivateKey(b"p" * 32, b"s" * 64)
    )
    frame = encode(messages.AddIdConstrained(key, "c", (constraints.Lifetime(5),)))
    custody = b"\xff" + b"\0\0\0\x0ecustody@kagent"
    for extra in (
        b"\x03",
        b"\xff" + b"\0\0\0\x03new",
        custody + b"\0\0\0\x06device",
        custody + b"\0\0\0\0",
    ):
        with pytest.raises(constraints.UnknownConstraint):
            decode(frame[4:] + extra)


def test_a_constraint_given_twice_is_an_error() -> None:
    key = privatekey.NamedPrivateKey(
        "ssh-ed25519", privatekey.Ed25519PrivateKey(b"p" * 32, b"s" * 64)
    )
    frame = encode(messages.AddIdConstrained(key, "c", (constraints.Lifetime(5),)))
    with pytest.raises(ProtocolError, match="twice"):
        decode(frame[4:] + b"\x01\0\0\0\x09")


@given(private_keys())
def test_a_private_key_never_shows_itself(key: privatekey.NamedPrivateKey) -> None:
    shown = repr(messages.AddIdentity(key, "comment"))
    for name in key.key.layout:
        value = getattr(key.key, name)
        if isinstance(value, int) and value > 10**6:
            assert str(value) not in shown
        if isinstance(value, bytes) and len(value) > 3:
            assert repr(value) not in shown
