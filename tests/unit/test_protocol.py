"""The codec: what is written is read back, and nothing hostile gets more than a ProtocolError."""

from __future__ import annotations

import tracemalloc
import typing
from collections.abc import Sequence
from pathlib import Path

import asyncssh.agent
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kagent.cli.client import AgentError, Client
from kagent.protocol import constraints, messages, privatekey, wire
from kagent.protocol.algorithms import KEY_TYPES, PLAIN_TYPES
from kagent.protocol.messages import Message, decode, encode
from kagent.protocol.publickey import PublicKey, UnknownKeyType
from kagent.protocol.wire import STRING, TEXT, ProtocolError, Record
from tests.destinations.keys import AUTHORITY, A, Key
from tests.machine.openssh import programs
from tests.support.frames import ask
from tests.support.programs import Person, agent
from tests.support.recorder import recorder

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


CLASSES = typing.get_args(privatekey.PrivateKey)
PLAIN = [cls for cls in CLASSES if cls.types[0] in KEY_TYPES]


@st.composite
def private_keys(
    draw: st.DrawFn, classes: Sequence[type[privatekey.PrivateKey]] = CLASSES
) -> privatekey.NamedPrivateKey:
    cls = draw(st.sampled_from(classes))
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


# RFC 4251 section 5, with its examples of an mpint.
@pytest.mark.parametrize(
    ("codec", "value", "written"),
    [
        (wire.MPINT, 0, "00000000"),
        (wire.MPINT, 0x7F, "000000017f"),
        (wire.MPINT, 0x80, "000000020080"),
        (wire.MPINT, 0x7FFF, "000000027fff"),
        (wire.MPINT, 0x9A378F9B2E332A7, "0000000809a378f9b2e332a7"),
        (wire.BYTE, 0xFE, "fe"),
        (wire.UINT32, 699921578, "29b7f4aa"),
        (wire.UINT64, 2**64 - 2, "fffffffffffffffe"),
        (wire.TEXT, "testing", "0000000774657374696e67"),
        (wire.counted(wire.TEXT), ("a", "", "b"), "000000030000000161000000000000000162"),
        (wire.nested(wire.repeated(wire.BYTE)), (1, 2, 3), "00000003010203"),
    ],
)
def test_values_lie_in_bytes_as_they_should(
    codec: wire.Codec[object], value: object, written: str
) -> None:
    assert codec.write(value).hex() == written
    assert codec.parse(bytes.fromhex(written)) == value


@pytest.mark.parametrize("written", ["0000000180", "00000002edcc", "00000005ff21524111"])
def test_a_negative_number_is_refused(written: str) -> None:
    with pytest.raises(ProtocolError, match="negative"):
        wire.MPINT.parse(bytes.fromhex(written))


def test_a_text_may_have_the_end_that_c_gives_it() -> None:
    """sshbuf_get_cstring, sshbuf-getput-basic.c."""
    assert TEXT.parse(STRING.write(b"text\0")) == "text"
    for other in (b"te\0xt", b"text\0\0", b"text\0x"):
        with pytest.raises(ProtocolError, match="NUL"):
            TEXT.parse(STRING.write(other))


def test_every_message_number_of_openssh_has_its_class() -> None:
    assert {cls.type for cls in Message.__subclasses__()} == set(messages.Type)


# Neither of the first ssh protocol, nor as new as RFC 9987.
@pytest.mark.parametrize(
    "number",
    [
        one
        for one in messages.Type
        if one.name not in ("REMOVE_ALL_RSA_IDENTITIES", "EXTENSION_RESPONSE")
    ],
    ids=lambda number: number.name,
)
def test_another_library_numbers_them_so_too(number: messages.Type) -> None:
    names = [f"SSH_AGENT{who}_{number.name}" for who in ("", "C")]
    assert number in [getattr(asyncssh.agent, name, None) for name in names]


def test_the_newest_openssh_understands_the_others(tmp_path: Path) -> None:
    person = Person.named(None, tmp_path / "home")
    with recorder(person) as taken:
        told, sent = taken.run(programs() / "ssh-add", "-D")
        assert told.returncode == 0
        assert [*map(decode, sent)] == [
            messages.RemoveAllIdentities(),
            messages.RemoveAllRsaIdentities(),
        ]
        taken.answer = encode(messages.ExtensionResponse(messages.QUERY, TEXT.write("other@there")))
        told, sent = taken.run(programs() / "ssh-add", "-Q")
        assert told.stdout == "other@there\n"
        assert [*map(decode, sent)] == [messages.Extension(messages.QUERY, b"")]
    with agent(person, programs() / "ssh-agent") as theirs, theirs.connect() as stream:
        answer = decode(ask(stream, encode(messages.Extension(messages.QUERY, b"")))[4:])
    assert isinstance(answer, messages.ExtensionResponse)
    assert answer.name == messages.QUERY
    assert messages.SESSION_BIND in wire.repeated(TEXT).parse(answer.contents)


@pytest.mark.parametrize(("length", "fits"), [(256 * 1024, True), (256 * 1024 + 1, False)])
def test_an_answer_may_be_as_long_as_in_openssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, fits: bool
) -> None:
    """MAX_AGENT_REPLY_LEN, authfd.c."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "home/recorder"))
    with recorder(Person.named(None, tmp_path / "home")) as taken, Client() as client:
        taken.answer = STRING.write(b"\x06" + bytes(length - 1))
        if fits:
            client.do(messages.RemoveAllIdentities())
        else:
            with pytest.raises(AgentError, match="invalid format"):
                client.do(messages.RemoveAllIdentities())


PAST = built(messages.PastRefusal)
CONTENTS = st.one_of(
    built(messages.Status),
    built(messages.Shown, constraints=CONSTRAINTS),
    built(messages.Why, refusals=st.lists(PAST, max_size=3).map(tuple)),
    built(messages.Via, kagents=st.lists(BLOBS, max_size=3).map(tuple)),
)


@given(CONTENTS)
def test_what_an_extension_carries_is_read_as_it_was_written(contents: Record) -> None:
    assert type(contents).parse(contents.write()) == contents


def test_what_is_shown_is_several_of_them() -> None:
    shown = tuple(
        messages.Shown(blob, "comment", "sealed", "", (constraints.Confirm(),), 0)
        for blob in (b"a", b"b")
    )
    written = b"".join(one.write() for one in shown)
    assert messages.Shown.parse_all(written) == shown
    with pytest.raises(ProtocolError):
        messages.Shown.parse_all(written[:-1])


def test_what_only_a_later_version_says_of_itself_is_kept() -> None:
    status = messages.Status(1, 2, 3, 4, "", 6, False, 8, True, "0.1")
    assert status.more == b""
    assert messages.Status.parse(status.write() + b"later") == status.replace(more=b"later")


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


def _strings(*values: bytes) -> bytes:
    return b"".join(map(STRING.write, values))


HOST = TEXT.write("ssh-ed25519") + STRING.write(b"p" * 32)


def _one_hop(*, origin: bytes = b"", target: bytes = b"", hop: bytes = b"") -> bytes:
    """The contents of a destination constraint, with that in its reserved fields."""
    here = _strings(b"", b"", origin)
    there = _strings(b"root", b"a", target, HOST) + b"\1"
    return _strings(_strings(_strings(here, there, hop)))


@pytest.mark.parametrize(
    ("written", "constraint"),
    [
        (b"\1\0\0\1\2", constraints.Lifetime(258)),
        (b"\2", constraints.Confirm()),
        (
            b"\xff" + _strings(b"restrict-destination-v00@openssh.com") + _one_hop(),
            constraints.RestrictDestination(
                (
                    constraints.PermittedHop(
                        constraints.Hop("", ""),
                        constraints.Hop(
                            "root", "a", keys=(constraints.HostKey(PublicKey.parse(HOST), True),)
                        ),
                    ),
                )
            ),
        ),
        (
            b"\xff" + _strings(b"sk-provider@openssh.com", b"/lib/sk.so"),
            constraints.SkProvider("/lib/sk.so"),
        ),
        (
            b"\xff"
            + _strings(b"associated-certs-v00@openssh.com")
            + b"\1"
            + _strings(_strings(b"one", b"other")),
            constraints.AssociatedCertificates(True, (b"one", b"other")),
        ),
        *(
            (
                b"\xff" + _strings(b"custody@kagent", custody.encode()),
                constraints.RequireCustody(custody),
            )
            for custody in ("kernel", "sealed")
        ),
        (b"\xff" + _strings(b"confirm-forwarded@kagent"), constraints.ConfirmForwarded()),
        (
            b"\xff" + _strings(b"idle-lifetime@kagent") + b"\0\0\1\2",
            constraints.IdleLifetime(258),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Record) else "",
)
def test_a_constraint_is_what_other_programs_send(
    written: bytes, constraint: constraints.Constraint
) -> None:
    """And what ours send: a name that is changed is one that no other version knows."""
    assert constraints.CONSTRAINTS.parse(written) == (constraint,)
    assert constraints.CONSTRAINTS.write((constraint,)) == written


@pytest.mark.parametrize("where", ["origin", "target", "hop"])
def test_what_restricts_a_destination_further_is_not_dropped(where: str) -> None:
    written = b"\xff" + _strings(b"restrict-destination-v00@openssh.com")
    with pytest.raises(constraints.UnknownConstraint):
        constraints.CONSTRAINTS.parse(written + _one_hop(**{where: b"x"}))


def test_as_many_certificates_as_openssh_takes() -> None:
    most = constraints.AssociatedCertificates(False, (b"",) * 1024)
    assert constraints.AssociatedCertificates.parse(most.write()) == most
    more = most.replace(certificates=(b"",) * 1025)
    with pytest.raises(ProtocolError, match="1025 certificates"):
        constraints.AssociatedCertificates.parse(more.write())


def test_a_constraint_given_twice_is_an_error() -> None:
    key = privatekey.NamedPrivateKey(
        "ssh-ed25519", privatekey.Ed25519PrivateKey(b"p" * 32, b"s" * 64)
    )
    frame = encode(messages.AddIdConstrained(key, "c", (constraints.Lifetime(5),)))
    with pytest.raises(ProtocolError, match="twice"):
        decode(frame[4:] + b"\x01\0\0\0\x09")


def test_a_key_of_every_type_that_is_known_can_be_sent_and_of_no_other() -> None:
    for name in (*KEY_TYPES, *PLAIN_TYPES):
        with pytest.raises(ProtocolError, match="truncated"):
            privatekey.PRIVATE_KEY.parse(TEXT.write(name))
    with pytest.raises(UnknownKeyType):
        privatekey.PRIVATE_KEY.parse(TEXT.write("ssh-future"))


@given(private_keys([privatekey.EcdsaPrivateKey, privatekey.SkEcdsaPrivateKey]))
def test_a_curve_that_is_not_its_types_is_an_error(named: privatekey.NamedPrivateKey) -> None:
    for curve in ("", "nistp224", "nistp256 "):
        other = named._replace(key=named.key.replace(curve=curve))
        with pytest.raises(ProtocolError, match="curve"):
            privatekey.PRIVATE_KEY.parse(privatekey.PRIVATE_KEY.write(other))


@given(private_keys(PLAIN))
def test_a_key_under_a_certificate_is_the_same_key(plain: privatekey.NamedPrivateKey) -> None:
    certificate = Key("", A.private, plain.public_blob).certified(AUTHORITY).public
    certified = plain.certified(certificate)
    assert (certified.type, certified.public_blob) == (certificate.type, certificate.blob)
    assert certificate.plain_blob == plain.public_blob
    sent = privatekey.PRIVATE_KEY.parse(privatekey.PRIVATE_KEY.write(certified))
    for name in {*sent.key.layout} - {"certificate"}:
        assert getattr(sent.key, name) == getattr(plain.key, name)


@given(private_keys())
def test_a_private_key_never_shows_itself(key: privatekey.NamedPrivateKey) -> None:
    shown = repr(messages.AddIdentity(key, "comment")) + repr(key.key)
    for name in key.key.layout:
        value = getattr(key.key, name)
        if isinstance(value, int) and value > 10**6:
            assert str(value) not in shown
        if isinstance(value, bytes) and len(value) > 3:
            assert repr(value) not in shown
