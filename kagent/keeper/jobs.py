"""What the front asks of the keeper, and what a worker answers.  No private key passes here.

A job is one packet on the control socket: a header of fixed size, and by SCM_RIGHTS the
descriptors that the worker gets, of which the last is the pipe that its answer goes to.  A worker
that dies closes the pipe without an answer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from ..custody.anchor import Identity
from ..protocol.wire import BYTE, TEXT, ProtocolError, Reader, Record, record


class Kind(IntEnum):
    """The jobs that there are, with their descriptors."""

    LOAD = 1  # client socket, answer


_HEADER = struct.Struct("=BBI")
HEADER_LENGTH = _HEADER.size
DESCRIPTORS = {Kind.LOAD: 2}


@dataclass(frozen=True)
class Job:
    """One job.  For LOAD: the type byte that the front has read, and the length of what follows."""

    kind: Kind
    message_type: int
    body_length: int

    def pack(self) -> bytes:
        """The header."""
        return _HEADER.pack(self.kind, self.message_type, self.body_length)

    @classmethod
    def unpack(cls, header: bytes) -> Job:
        """Raises ValueError for anything but a header."""
        if len(header) != _HEADER.size:
            raise ValueError("not a job header")
        kind, message_type, body_length = _HEADER.unpack(header)
        return cls(Kind(kind), message_type, body_length)


@dataclass(frozen=True)
class Loaded(Record):
    """The key is held."""

    identity: Identity
    layout = (record(Identity),)


@dataclass(frozen=True)
class Refused(Record):
    """The request was read to its end, and not carried out."""

    reason: str
    layout = (TEXT,)


Answer: TypeAlias = Loaded | Refused
_ANSWERS: tuple[type[Answer], ...] = Answer.__args__


def pack_answer(answer: Answer) -> bytes:
    """An answer as it goes through the pipe."""
    return BYTE.write(_ANSWERS.index(type(answer))) + answer.write()


def unpack_answer(payload: bytes) -> Answer | None:
    """The answer; None if the worker died before it could give one."""
    try:
        reader = Reader(payload)
        answer = _ANSWERS[BYTE.read(reader)].read(reader)
        reader.expect_end()
    except (ProtocolError, IndexError):
        return None
    return answer
