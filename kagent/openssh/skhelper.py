"""OpenSSH's ssh-sk-helper, which talks to FIDO tokens through a provider library.

A provider is foreign code, so as in OpenSSH it runs in the helper and nowhere else.  One request,
one answer, and the helper ends.  OpenSSH's ssh-sk.h, ssh-sk-client.c and ssherr.c.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import TypeVar

from .. import log, programs
from ..protocol.privatekey import PRIVATE_KEY, NamedPrivateKey
from ..protocol.refusals import Cause
from ..protocol.wire import (
    BOOLEAN,
    BYTE,
    STRING,
    TEXT,
    UINT32,
    Codec,
    ProtocolError,
    Reader,
    Record,
    field,
    nested,
    record,
    repeated,
)
from . import helpers
from .helpers import HelperError

T = TypeVar("T")

# SSH_SK_HELPER_VERSION of OpenSSH 8.4 to 10.6.  It changes with the messages, so no other
# version is taken.
_VERSION = 5

_HEADER = struct.Struct(">IB")
_LARGEST = 1 << 20  # bytes of an answer; hundreds of resident keys

# ssherr.h and ssherr.c: those that a helper can come to.
_ERRORS = {
    1: "unexpected internal error",
    2: "memory allocation failed",
    4: "invalid format",
    10: "invalid argument",
    14: "unknown or unsupported key type",
    20: "invalid elliptic curve value",
    22: "error in libcrypto",
    43: "incorrect passphrase supplied to decrypt private key",
    44: "bad permissions",
    59: "requested feature not supported",
    60: "device not found",
}
_WRONG_PIN = 43


class PinRequired(HelperError):
    """The token wants a PIN, and none was given or not the right one."""


class _Type(IntEnum):
    ERROR = 0
    SIGN = 1
    LOAD_RESIDENT = 3


class _Sign(Record, repr=False):
    key: NamedPrivateKey = field(nested(PRIVATE_KEY))
    provider: str = field(TEXT)
    data: bytes = field(STRING)
    algorithm: str = field(TEXT)  # always empty: a key has but one
    compatibility: int = field(UINT32)
    pin: str = field(TEXT)


class _LoadResident(Record, repr=False):
    provider: str = field(TEXT)
    device: str = field(TEXT)  # "": whichever is there
    pin: str = field(TEXT)
    flags: int = field(UINT32)


class _Resident(Record):
    key: NamedPrivateKey = field(nested(PRIVATE_KEY))
    comment: str = field(TEXT)  # always empty
    user: bytes = field(STRING)


def sign(key: NamedPrivateKey, provider: str, data: bytes, pin: str = "") -> bytes:
    """A signature by the token, as ssh sends it: string algorithm, string signature, byte flags,
    uint32 counter (PROTOCOL.u2f).

    Blocks until the user has touched the token, if the key's flags demand it.  Raises PinRequired,
    HelperError.
    """
    return read_signature(*_ask(_Type.SIGN, _Sign(key, provider, data, "", 0, pin)))


def load_resident(provider: str, pin: str) -> list[NamedPrivateKey]:
    """The keys that the token itself stores for ssh.  Raises PinRequired, HelperError."""
    request = _LoadResident(provider, "", pin, 0)
    return read_resident(*_ask(_Type.LOAD_RESIDENT, request))


def read_signature(program: str, answer: bytes) -> bytes:
    """The helper's answer to a request for a signature.  Raises PinRequired, HelperError."""
    return _read(program, answer, _Type.SIGN, STRING)


def read_resident(program: str, answer: bytes) -> list[NamedPrivateKey]:
    """Its answer to a request for resident keys.  Raises PinRequired, HelperError."""
    return [
        one.key for one in _read(program, answer, _Type.LOAD_RESIDENT, repeated(record(_Resident)))
    ]


def _ask(kind: _Type, request: Record) -> tuple[str, bytes]:
    """The helper's path and its answer.  Raises HelperError."""
    to_stderr, verbose = log.settings()
    level = 5 if verbose else 3  # log.h: SYSLOG_LEVEL_DEBUG1, SYSLOG_LEVEL_INFO
    preamble = UINT32.write(kind) + BOOLEAN.write(to_stderr) + UINT32.write(level)
    message = preamble + request.write()
    program = helpers.program("ssh-sk-helper")
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            helper = programs.start([program], stdin=theirs.fileno(), stdout=theirs.fileno())
        with helper, ours:
            answer = _exchange(ours, _HEADER.pack(len(message) + 1, _VERSION) + message)
    except OSError as error:
        raise HelperError(f"{program}: {error.strerror}") from error
    finally:
        ours.close()
    if helper.returncode != 0 or answer is None:
        raise HelperError(f"{program} broke off; its own line in the log says why")
    return program, answer


def _read(program: str, answer: bytes, kind: _Type, answered: Codec[T]) -> T:
    reader = Reader(answer)
    try:
        _check(kind, reader)
        value = answered.read(reader)
        reader.expect_end()
    except ProtocolError as error:
        raise HelperError(f"malformed answer of {program}: {error}") from error
    return value


def _exchange(stream: socket.socket, frame: bytes) -> bytes | None:
    """The answer to `frame`; None if the helper ended before it had given one."""
    try:
        stream.sendall(frame)
        with stream.makefile("rb") as answer:
            length = int.from_bytes(answer.read(4), "big")
            payload = answer.read(min(length, _LARGEST))
    except ConnectionError:
        return None
    return payload if len(payload) == length else None


def _check(kind: _Type, reader: Reader) -> None:
    """Raise HelperError unless what follows is an answer to a request of that kind."""
    version = BYTE.read(reader)
    if version != _VERSION:
        raise HelperError(f"unsupported version: got {version}, expected {_VERSION}")
    answered = UINT32.read(reader)
    if answered == _Type.ERROR:
        code = UINT32.read(reader)
        text = _ERRORS.get(code, f"unknown error {code}")
        raise PinRequired(text, Cause.PIN) if code == _WRONG_PIN else HelperError(text)
    if answered != kind:
        raise HelperError(f"answer of type {answered}, expected {kind:d}")
