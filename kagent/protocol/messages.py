# Every message that OpenSSH's agent knows, as values (RFC 9987, PROTOCOL.agent).
#
# A frame is a uint32 length and a payload; a payload is a type byte and a body.  `decode` takes a
# payload and gives a message or a ProtocolError, nothing else; `encode` gives a whole frame.
"""The messages of the agent protocol."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from .constraints import CONSTRAINTS, Constraint
from .privatekey import PRIVATE_KEY, NamedPrivateKey
from .refusals import Cause
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
    field,
    nested,
    record,
    repeated,
)

# OpenSSH: AGENT_MAX_LEN.  A larger frame ends the connection.
MAX_PAYLOAD = 256 * 1024


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


class UnknownMessage(ProtocolError):
    """A message type that OpenSSH's agent doesn't know either."""

    cause = Cause.UNSUPPORTED


class Message(Record):
    """A message; its fields are its body."""

    type: ClassVar[Type]


class Failure(Message):
    """The request was refused."""

    type = Type.FAILURE


class Success(Message):
    """The request was carried out."""

    type = Type.SUCCESS


class RemoveAllRsaIdentities(Message):
    """Of the first ssh protocol; ssh-add -D still sends it."""

    type = Type.REMOVE_ALL_RSA_IDENTITIES


class RequestIdentities(Message):
    """Which keys are there?"""

    type = Type.REQUEST_IDENTITIES


class ListedKey(Record):
    """A key on offer: the blob of its public half or certificate, and its comment."""

    blob: bytes = field(STRING)
    comment: str = field(TEXT)


class IdentitiesAnswer(Message):
    """The keys, in the order in which they were added."""

    identities: tuple[ListedKey, ...] = field(counted(record(ListedKey)))
    type = Type.IDENTITIES_ANSWER


class SignRequest(Message):
    """Sign `data` with the key of that blob.  `flags` are SignFlags, and other bits are kept."""

    blob: bytes = field(STRING)
    data: bytes = field(STRING)
    flags: int = field(UINT32)
    type = Type.SIGN_REQUEST


class SignResponse(Message):
    """`signature` is string algorithm, string signature (RFC 4253 section 6.6)."""

    signature: bytes = field(STRING)
    type = Type.SIGN_RESPONSE


class AddIdentity(Message):
    """Hold this private key.

    Constraints don't belong here, but ssh-agent reads them, and a client may count on it.
    """

    key: NamedPrivateKey = field(PRIVATE_KEY)
    comment: str = field(TEXT)
    constraints: tuple[Constraint, ...] = field(CONSTRAINTS, default=())
    type = Type.ADD_IDENTITY


class AddIdConstrained(Message):
    """Hold this private key, under constraints."""

    key: NamedPrivateKey = field(PRIVATE_KEY)
    comment: str = field(TEXT)
    constraints: tuple[Constraint, ...] = field(CONSTRAINTS)
    type = Type.ADD_ID_CONSTRAINED


class RemoveIdentity(Message):
    """Forget the key of that blob."""

    blob: bytes = field(STRING)
    type = Type.REMOVE_IDENTITY


class RemoveAllIdentities(Message):
    """Forget all keys."""

    type = Type.REMOVE_ALL_IDENTITIES


class AddSmartcardKey(Message, repr=False):
    """Hold the keys of a token.  As with AddIdentity, ssh-agent reads constraints here too."""

    provider: str = field(TEXT)
    pin: str = field(TEXT)
    constraints: tuple[Constraint, ...] = field(CONSTRAINTS, default=())
    type = Type.ADD_SMARTCARD_KEY


class AddSmartcardKeyConstrained(Message, repr=False):
    """Hold the keys of a token, under constraints."""

    provider: str = field(TEXT)
    pin: str = field(TEXT)
    constraints: tuple[Constraint, ...] = field(CONSTRAINTS)
    type = Type.ADD_SMARTCARD_KEY_CONSTRAINED


class RemoveSmartcardKey(Message, repr=False):
    """Forget the keys of a token."""

    provider: str = field(TEXT)
    pin: str = field(TEXT)
    type = Type.REMOVE_SMARTCARD_KEY


class Lock(Message, repr=False):
    """Refuse everything until Unlock comes with the same passphrase."""

    passphrase: bytes = field(STRING)
    type = Type.LOCK


class Unlock(Message, repr=False):
    """Undo Lock."""

    passphrase: bytes = field(STRING)
    type = Type.UNLOCK


# kagent's own extension: what became of the last request on this connection.  FAILURE has no room
# for a reason, nor SUCCESS for how a key is held.
EXPLAIN = "explain@kagent"


class Extension(Message):
    """A request outside the RFC; what `contents` is depends on `name`."""

    name: str = field(TEXT)
    contents: bytes = field(REST)
    type = Type.EXTENSION


# OpenSSH's extension that tells an agent which host a connection leads to (PROTOCOL.agent).
SESSION_BIND = "session-bind@openssh.com"

# RFC 9987 section 3.8.1: which extensions are there?
QUERY = "query"


class SessionBind(Record):
    """The contents of SESSION_BIND; `signature` is the host's, over the session id."""

    host_key: bytes = field(STRING)
    session_id: bytes = field(STRING)
    signature: bytes = field(STRING)
    is_forwarding: bool = field(BOOLEAN)


# kagent's own extension: what is there to know of each key, but for the keys themselves.
SHOW = "show@kagent"

# How `why` begins of a certificate that nobody has loaded.
PRINTED = "certificate printed by "
RENEWAL = "renewal"  # in the place of a request, in what a PastRefusal says


class Shown(Record):
    """One identity in the answer to SHOW.

    `why` says why the kernel doesn't sign itself, and of a PKCS#11 token's key the library that
    talks to the token; `expires` is in seconds since 1970, 0 for never.
    """

    blob: bytes = field(STRING)
    comment: str = field(TEXT)
    custody: str = field(TEXT)
    why: str = field(TEXT)
    constraints: tuple[Constraint, ...] = field(nested(CONSTRAINTS))
    expires: int = field(UINT64)

    @classmethod
    def parse_all(cls, contents: bytes) -> tuple[Shown, ...]:
        """Raises ProtocolError."""
        return repeated(record(cls)).parse(contents)


# kagent's own extension: how the agent is.
STATUS = "status@kagent"


class Status(Record):
    """The contents of the answer to STATUS; times are in seconds since 1970, 0 for never.

    `keeper` is a pid; `signatures` were made since `since`; `pending` questions wait for the user;
    `idle_exit` is in seconds, 0 for never; `stays` is whether keys or a lock keep it from ending;
    `version` is of the program that answers, which another may have taken the place of on the disk;
    `more` is what only a later one says.
    """

    keeper: int = field(UINT32)
    since: int = field(UINT64)
    signatures: int = field(UINT64)
    pending: int = field(UINT32)
    refusal: str = field(TEXT)
    refused_at: int = field(UINT64)
    locked: bool = field(BOOLEAN)
    idle_exit: int = field(UINT32)
    stays: bool = field(BOOLEAN)
    version: str = field(TEXT)
    more: bytes = field(REST, default=b"")


# kagent's own extension: what was refused lately, to whom, and why.
WHY = "why@kagent"


class PastRefusal(Record):
    """One in the answer to WHY; texts are empty where nothing is known.

    `at` is when it was refused last, in seconds since 1970, and `times` how often; `cause` is a
    Cause, or what another version calls so; `request` is a message's name or an extension's; `by`
    is the program that asked, with those that started it, and `hosts` those on the way.
    """

    at: int = field(UINT64)
    times: int = field(UINT32)
    cause: str = field(TEXT)
    request: str = field(TEXT)
    reason: str = field(TEXT)
    fingerprint: str = field(TEXT)
    comment: str = field(TEXT)
    by: str = field(TEXT)
    hosts: str = field(TEXT)
    user: str = field(TEXT)
    forwarded: bool = field(BOOLEAN)


class Why(Record):
    """The contents of the answer to WHY: since when is counted, how many were refused, the last."""

    since: int = field(UINT64)
    number: int = field(UINT64)
    refusals: tuple[PastRefusal, ...] = field(counted(record(PastRefusal)))


# kagent's own extension: through which kagents a request comes, each behind the one before it.  Who
# finds itself among them is behind itself, and answers EXTENSION_RESPONSE, with nothing in it;
# SUCCESS otherwise.
VIA = "via@kagent"
KAGENT_ID_LENGTH = 16  # bytes, made anew by each


class Via(Record):
    """The contents of VIA."""

    kagents: tuple[bytes, ...] = field(repeated(STRING))


class ExtensionFailure(Message):
    """The extension is known, but the request failed."""

    type = Type.EXTENSION_FAILURE


class ExtensionResponse(Message):
    """The extension's answer, under its name."""

    name: str = field(TEXT)
    contents: bytes = field(REST)
    type = Type.EXTENSION_RESPONSE


_CLASSES: dict[int, type[Message]] = {cls.type: cls for cls in Message.__subclasses__()}


def decode(payload: bytes) -> Message:
    """The message in a frame's payload.  What follows it is ignored, as OpenSSH does.

    Raises UnknownMessage, UnknownKeyType, UnknownConstraint, or another ProtocolError.
    """
    reader = Reader(payload)
    number = BYTE.read(reader)
    if number not in _CLASSES:
        raise UnknownMessage(f"unknown message {number}")
    return _CLASSES[number].read(reader)


def encode(message: Message) -> bytes:
    """The frame that carries `message`."""
    return STRING.write(BYTE.write(message.type) + message.write())
