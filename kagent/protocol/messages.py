# Every message that OpenSSH's agent knows, as values (RFC 9987, PROTOCOL.agent).
#
# A frame is a uint32 length and a payload; a payload is a type byte and a body.  `decode` takes a
# payload and gives a message or a ProtocolError, nothing else; `encode` gives a whole frame.
"""The messages of the agent protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar

from .constraints import CONSTRAINTS, Constraint
from .privatekey import PRIVATE_KEY, NamedPrivateKey
from .wire import (
    BOOLEAN,
    BYTE,
    REST,
    STRING,
    TEXT,
    UINT32,
    UINT64,
    ProtocolError,
    Reader,
    Record,
    counted,
    nested,
    record,
    repeated,
)

# OpenSSH: AGENT_MAX_LEN.  A larger frame ends the connection.
MAX_PAYLOAD = 256 * 1024

# A frame's length and type: all that is read before it is decided who reads the body.
HEADER_LENGTH = 5


class Type(IntEnum):
    """Message numbers, RFC 9987 section 6.1."""

    FAILURE = 5
    SUCCESS = 6
    REMOVE_ALL_RSA_IDENTITIES = 9
    REQUEST_IDENTITIES = 11
    IDENTITIES_ANSWER = 12
    SIGN_REQUEST = 13
    SIGN_RESPONSE = 14
    ADD_IDENTITY = 17
    REMOVE_IDENTITY = 18
    REMOVE_ALL_IDENTITIES = 19
    ADD_SMARTCARD_KEY = 20
    REMOVE_SMARTCARD_KEY = 21
    LOCK = 22
    UNLOCK = 23
    ADD_ID_CONSTRAINED = 25
    ADD_SMARTCARD_KEY_CONSTRAINED = 26
    EXTENSION = 27
    EXTENSION_FAILURE = 28
    EXTENSION_RESPONSE = 29


class SignFlags(IntFlag):
    """RFC 9987 section 3.6.1."""

    RSA_SHA2_256 = 2
    RSA_SHA2_512 = 4


class UnknownMessage(ProtocolError):
    """A message type that OpenSSH's agent doesn't know either."""


class Message(Record):
    """A message; the dataclass's fields are its body."""

    type: ClassVar[Type]


@dataclass(frozen=True)
class Failure(Message):
    """The request was refused."""

    type = Type.FAILURE


@dataclass(frozen=True)
class Success(Message):
    """The request was carried out."""

    type = Type.SUCCESS


@dataclass(frozen=True)
class RemoveAllRsaIdentities(Message):
    """Of the first ssh protocol; ssh-add -D still sends it."""

    type = Type.REMOVE_ALL_RSA_IDENTITIES


@dataclass(frozen=True)
class RequestIdentities(Message):
    """Which keys are there?"""

    type = Type.REQUEST_IDENTITIES


@dataclass(frozen=True)
class Identity(Record):
    """A key on offer: the blob of its public half or certificate, and its comment."""

    blob: bytes
    comment: str
    layout = (STRING, TEXT)


@dataclass(frozen=True)
class IdentitiesAnswer(Message):
    """The keys, in the order in which they were added."""

    identities: tuple[Identity, ...]
    type = Type.IDENTITIES_ANSWER
    layout = (counted(record(Identity)),)


@dataclass(frozen=True)
class SignRequest(Message):
    """Sign `data` with the key of that blob.  `flags` as in SignFlags, other bits kept."""

    blob: bytes
    data: bytes
    flags: int
    type = Type.SIGN_REQUEST
    layout = (STRING, STRING, UINT32)


@dataclass(frozen=True)
class SignResponse(Message):
    """`signature` is string algorithm, string signature (RFC 4253 section 6.6)."""

    signature: bytes
    type = Type.SIGN_RESPONSE
    layout = (STRING,)


@dataclass(frozen=True)
class AddIdentity(Message):
    """Hold this private key."""

    key: NamedPrivateKey
    comment: str
    type = Type.ADD_IDENTITY
    layout = (PRIVATE_KEY, TEXT)


@dataclass(frozen=True)
class AddIdConstrained(Message):
    """Hold this private key, under constraints."""

    key: NamedPrivateKey
    comment: str
    constraints: tuple[Constraint, ...]
    type = Type.ADD_ID_CONSTRAINED
    layout = (PRIVATE_KEY, TEXT, CONSTRAINTS)


@dataclass(frozen=True)
class RemoveIdentity(Message):
    """Forget the key of that blob."""

    blob: bytes
    type = Type.REMOVE_IDENTITY
    layout = (STRING,)


@dataclass(frozen=True)
class RemoveAllIdentities(Message):
    """Forget all keys."""

    type = Type.REMOVE_ALL_IDENTITIES


@dataclass(frozen=True, repr=False)
class AddSmartcardKey(Message):
    """Hold the keys of a token."""

    provider: str
    pin: str
    type = Type.ADD_SMARTCARD_KEY
    layout = (TEXT, TEXT)


@dataclass(frozen=True, repr=False)
class AddSmartcardKeyConstrained(Message):
    """Hold the keys of a token, under constraints."""

    provider: str
    pin: str
    constraints: tuple[Constraint, ...]
    type = Type.ADD_SMARTCARD_KEY_CONSTRAINED
    layout = (TEXT, TEXT, CONSTRAINTS)


@dataclass(frozen=True, repr=False)
class RemoveSmartcardKey(Message):
    """Forget the keys of a token."""

    provider: str
    pin: str
    type = Type.REMOVE_SMARTCARD_KEY
    layout = (TEXT, TEXT)


@dataclass(frozen=True, repr=False)
class Lock(Message):
    """Refuse everything until Unlock comes with the same passphrase."""

    passphrase: bytes
    type = Type.LOCK
    layout = (STRING,)


@dataclass(frozen=True, repr=False)
class Unlock(Message):
    """Undo Lock."""

    passphrase: bytes
    type = Type.UNLOCK
    layout = (STRING,)


# kagent's own extension: what became of the last request on this connection.  FAILURE has no room
# for a reason, nor SUCCESS for how a key is held.
EXPLAIN = "explain@kagent"


@dataclass(frozen=True)
class Extension(Message):
    """A request outside the RFC; what `contents` is depends on `name`."""

    name: str
    contents: bytes
    type = Type.EXTENSION
    layout = (TEXT, REST)


# OpenSSH's extension that tells an agent which host a connection leads to (PROTOCOL.agent).
SESSION_BIND = "session-bind@openssh.com"

# RFC 9987 section 3.8.1: which extensions are there?
QUERY = "query"


@dataclass(frozen=True)
class SessionBind(Record):
    """The contents of SESSION_BIND; `signature` is the host's, over the session id."""

    host_key: bytes
    session_id: bytes
    signature: bytes
    is_forwarding: bool
    layout = (STRING, STRING, STRING, BOOLEAN)

    @classmethod
    def parse(cls, contents: bytes) -> SessionBind:
        """Raises ProtocolError."""
        reader = Reader(contents)
        bind = cls.read(reader)
        reader.expect_end()
        return bind


# kagent's own extension: what is there to know of each key, but for the keys themselves.
SHOW = "show@kagent"


@dataclass(frozen=True)
class Shown(Record):
    """One identity in the answer to SHOW.

    `why` says why the kernel doesn't sign itself; `expires` is in seconds since 1970, 0 for never.
    """

    blob: bytes
    comment: str
    custody: str
    why: str
    constraints: tuple[Constraint, ...]
    expires: int
    layout = (STRING, TEXT, TEXT, TEXT, nested(CONSTRAINTS), UINT64)

    @classmethod
    def parse_all(cls, contents: bytes) -> tuple[Shown, ...]:
        """Raises ProtocolError."""
        return repeated(record(cls)).read(Reader(contents))


# kagent's own extension: how the agent is.
STATUS = "status@kagent"


@dataclass(frozen=True)
class Status(Record):
    """The contents of the answer to STATUS; times are in seconds since 1970, 0 for never.

    `keeper` is a pid; `signatures` were made since `since`; `pending` questions wait for the user;
    `idle_exit` is in seconds, 0 for never; `stays` is whether keys or a lock keep it from ending.
    """

    keeper: int
    since: int
    signatures: int
    pending: int
    refusal: str
    refused_at: int
    locked: bool
    idle_exit: int
    stays: bool
    layout = (UINT32, UINT64, UINT64, UINT32, TEXT, UINT64, BOOLEAN, UINT32, BOOLEAN)

    @classmethod
    def parse(cls, contents: bytes) -> Status:
        """Raises ProtocolError."""
        reader = Reader(contents)
        status = cls.read(reader)
        reader.expect_end()
        return status


@dataclass(frozen=True)
class ExtensionFailure(Message):
    """The extension is known, but the request failed."""

    type = Type.EXTENSION_FAILURE


@dataclass(frozen=True)
class ExtensionResponse(Message):
    """The extension's answer, under its name."""

    name: str
    contents: bytes
    type = Type.EXTENSION_RESPONSE
    layout = (TEXT, REST)


_CLASSES: dict[int, type[Message]] = {cls.type: cls for cls in Message.__subclasses__()}


def decode(payload: bytes) -> Message:
    """The message in a frame's payload.

    Raises UnknownMessage, UnknownKeyType, UnknownConstraint, or another ProtocolError.
    """
    reader = Reader(payload)
    number = BYTE.read(reader)
    if number not in _CLASSES:
        raise UnknownMessage(f"unknown message {number}")
    message = _CLASSES[number].read(reader)
    reader.expect_end()
    return message


def encode(message: Message) -> bytes:
    """The frame that carries `message`."""
    return STRING.write(BYTE.write(message.type) + message.write())
