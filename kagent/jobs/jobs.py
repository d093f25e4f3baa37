"""What the front asks of the keeper and its workers, and what they answer.  No private key passes.

A job is one packet: a header of fixed size and, by SCM_RIGHTS, the descriptors that the worker
gets, of which the last is the pipe that the answer goes to.  A worker that dies closes the pipe
without an answer.  Jobs go to the keeper; what is to be found out about a client goes to the
lookout; and signatures, which have to be quick, go straight to the sign workers: each has a socket
to the front, and answers there.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from ..custody.identity import DESCRIPTION_LENGTH, Custody, Identity
from ..protocol.algorithms import ALGORITHMS, KEY_TYPES
from ..protocol.messages import MAX_PAYLOAD, ListedKey, Shown
from ..protocol.wire import (
    BYTE,
    STRING,
    TEXT,
    UINT32,
    UINT64,
    Codec,
    ProtocolError,
    Reader,
    Record,
    counted,
    field,
    record,
)
from .causes import Cause, cause_of
from .questions import Offering, Origin, Worded


class Kind(IntEnum):
    """The jobs that the keeper takes, with their descriptors."""

    LOAD = 1  # client's socket, answer
    KEEP = 2  # answer
    GO_BACK = 3  # answer
    DROP = 4  # answer
    FORGET = 5  # answer
    FORGET_ALL = 6  # answer
    CHECK_BIND = 7  # request, answer
    ASK = 8  # request, client's socket, answer
    DEVICE = 9  # request, client's socket, answer
    OFFER = 10  # request, answer
    FETCH = 11  # request, answer
    READY = 12  # none; no job, but the word that the front serves
    LIST_BEHIND = 13  # request, answer
    SIGN_BEHIND = 14  # request, answer
    TOKEN = 15  # request, answer
    LEARN = 16  # request, answer
    CERTIFY = 17  # request, answer
    NOTIFY = 18  # request, answer
    SOURCE = 19  # request, client's socket, answer
    USED = 20  # none


_DESCRIPTION = f"{DESCRIPTION_LENGTH}s"
_HEADER = struct.Struct(f"=BB??QIQQ{_DESCRIPTION}8s")
HEADER_LENGTH = _HEADER.size
LONGEST_JOB = HEADER_LENGTH + MAX_PAYLOAD  # with a record behind it


class Job(NamedTuple):
    """One job.

    LOAD has the type byte that the front has read, the length of what follows it, whether the
    connection was bound to a host, and whether the agent is locked; and the number by which the
    front will tell what is to become of it.  KEEP has the number of the load whose key is to be
    held, the identity's description, its custody, and when the keeper is to end it: in nanoseconds
    of CLOCK_BOOTTIME, and after how many without a use, 0 for never.  Behind it comes the record
    that the keeper is to hold, if it is.  Then comes FORGET, with the description of the identity
    that is to go, but for what it is in `custody`; or GO_BACK, with what KEEP has, of what was held
    before.  USED has the description of an identity that has just been used.
    DROP has the number of a load whose key is not wanted.  The others have the length of the Record
    that the worker can read.  LIST_BEHIND and SIGN_BEHIND also have the number of the agent behind,
    from 0, as they were named to kagent; TOKEN has the description of the identity whose token is
    to sign; SOURCE has a number as LOAD has, and ends as that does.
    """

    kind: Kind
    message_type: int = 0
    bound: bool = False
    locked: bool = False
    number: int = 0
    body_length: int = 0
    deadline: int = 0
    description: str = ""
    custody: Custody | None = None
    idle: int = 0

    def pack(self) -> bytes:
        """The header."""
        return _HEADER.pack(
            self.kind,
            self.message_type,
            self.bound,
            self.locked,
            self.number,
            self.body_length,
            self.deadline,
            self.idle,
            self.description.encode(),
            (self.custody or "").encode(),
        )

    @classmethod
    def unpack(cls, header: bytes) -> Job:
        """Raises ValueError for anything but a header."""
        if len(header) != _HEADER.size:
            raise ValueError("not a job header")
        kind, message_type, bound, locked, *numbers, description, form = _HEADER.unpack(header)
        number, length, deadline, idle = numbers
        name, form = (text.rstrip(b"\0").decode() for text in (description, form))
        return cls(
            Kind(kind),
            message_type,
            bound,
            locked,
            number,
            length,
            deadline,
            name,
            Custody(form) if form else None,
            idle,
        )


# A load worker's, by what it has left for the keeper.
LONGEST_KEY = 65536  # bytes that it leaves; far more than any key or handle has
LEFT = {Custody.KERNEL: 70, Custody.SEALED: 71, Custody.DEVICE: 72, Custody.TOKEN: 73}

# A source worker's, when it has left what its source gave.
LEFT_OF_SOURCE = 74

# The exit code of the front when it had nothing to do for long, and nothing is held that would be
# lost; and of the sign workers' parent, when nobody has asked for a signature for long.
IDLE = 75

# The parent's of the sign workers, when it meets the end of the front's socket.
UNUSED = 76

# What a sealed key may be asked for, by number in a signature job.
_ALGORITHMS = tuple(
    name for name, one in ALGORITHMS.items() if not KEY_TYPES[one.key_type].on_token
)
_SIGN_HEADER = struct.Struct(f"={_DESCRIPTION}B")
LONGEST_SIGN_JOB = _SIGN_HEADER.size + MAX_PAYLOAD

# What comes through the front's socket for signatures: a worker, with the descriptor of its socket;
# and whether workers are to come, by themselves or when they are wanted.  That is what the front
# sends.
WORKER, WORKERS_COME, WORKERS_ON_DEMAND, NO_WORKERS = b"\2", b"\1", b"\3", b"\0"
WANTED = b"\4"


class SignJob(NamedTuple):
    """A signature by the sealed key of the identity with that description.  `data` is opaque."""

    description: str
    algorithm: str
    data: bytes

    def pack(self) -> bytes:
        """The packet."""
        algorithm = _ALGORITHMS.index(self.algorithm)
        return _SIGN_HEADER.pack(self.description.encode(), algorithm) + self.data

    @classmethod
    def unpack(cls, packet: bytes) -> SignJob:
        """Raises ValueError for anything but such a packet."""
        try:
            description, algorithm = _SIGN_HEADER.unpack_from(packet)
            return cls(description.decode(), _ALGORITHMS[algorithm], packet[_SIGN_HEADER.size :])
        except (struct.error, IndexError) as error:
            raise ValueError("not a signature job") from error


class Loaded(Record):
    """The keeper has what this load has brought, which is to be kept or dropped.

    It is a load worker's word, of the key that it was sent, and of no other.
    """

    identity: Identity = field(record(Identity))


class Inserted(Record):
    """A process talks to the token of `provider`, and has found these keys, to be kept or dropped.

    The load's number stands for all of them, until the front drops it.
    """

    provider: str = field(TEXT)
    identities: tuple[Identity, ...] = field(counted(record(Identity)))


class Removal(Record):
    """The keys of the token that `provider` talks to are to go; no key has come."""

    provider: str = field(TEXT)


class Signed(Record):
    """A signature as ssh sends it: string algorithm, string signature."""

    signature: bytes = field(STRING)


class Done(Record):
    """It was done; there is nothing to tell of it."""


def _read_cause(reader: Reader) -> Cause:
    try:
        return Cause(TEXT.read(reader))
    except ValueError as error:
        raise ProtocolError("unknown cause") from error


_CAUSE = Codec(_read_cause, TEXT.write)


class Refused(Record):
    """The request was read to its end, and not carried out.

    A load worker also says which key it was about, as far as it got.
    """

    cause: Cause = field(_CAUSE)
    reason: str = field(TEXT)
    blob: bytes = field(STRING, default=b"")
    comment: str = field(TEXT, default="")

    @classmethod
    def because(cls, error: Exception, before: str = "") -> Refused:
        """The answer for what was raised."""
        return cls(cause_of(error), f"{before}{error}")


class Rule(Record):
    """What is configured for a key, wherever that is: as far as the front has to know it.

    `program` prints certificates for it, `renew_before` seconds before the last one ends; "" if
    none does.  `notify` is of whose use the user is told: "" where that isn't said of this key.
    """

    blob: bytes = field(STRING)
    program: str = field(TEXT, default="")
    renew_before: int = field(UINT64, default=0)
    notify: str = field(TEXT, default="")


class Offered(Record):
    """The identities that are configured, each with the state of its key as `why`; and what is
    configured of these and others: `notify` is for all keys of which no rule says it.

    Those in `sources` name where their key comes from; the kernel has the others' fetched.
    """

    shown: tuple[Shown, ...] = field(counted(record(Shown)))
    sources: tuple[Shown, ...] = field(counted(record(Shown)), default=())
    rules: tuple[Rule, ...] = field(counted(record(Rule)), default=())
    notify: str = field(TEXT, default="never")


class Fetched(Record):
    """A configured identity's key is in the ring for such keys, under that serial."""

    identity: Identity = field(record(Identity))
    serial: int = field(UINT32)


class Certified(Record):
    """A certificate for the key that one was wanted for, valid now."""

    blob: bytes = field(STRING)


class KeysBehind(Record):
    """The keys of an agent behind; `left_out` of them can't be verified, or are too many."""

    keys: tuple[ListedKey, ...] = field(counted(record(ListedKey)))
    left_out: int = field(UINT32)


Answer: TypeAlias = (
    Loaded
    | Inserted
    | Removal
    | Signed
    | Done
    | Refused
    | Origin
    | Worded
    | Offered
    | Fetched
    | KeysBehind
    | Offering
    | Certified
)
_ANSWERS: tuple[type[Answer], ...] = Answer.__args__


def pack_answer(answer: Answer) -> bytes:
    """An answer as it goes through the pipe."""
    return BYTE.write(_ANSWERS.index(type(answer))) + answer.write()


_SIGNED = BYTE.write(_ANSWERS.index(Signed))


def pack_signature(signature: bytes) -> bytes:
    """The answer Signed, with less ado than `pack_answer`: a sign worker has little time."""
    return _SIGNED + STRING.write(signature)


def unpack_answer(payload: bytes) -> Answer | None:
    """The answer; None if the worker died before it could give one."""
    try:
        reader = Reader(payload)
        answer = _ANSWERS[BYTE.read(reader)].read(reader)
        reader.expect_end()
    except (ProtocolError, IndexError):
        return None
    return answer
