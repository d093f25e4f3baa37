"""OpenSSH's ssh-pkcs11-helper, which talks to PKCS#11 tokens through a provider library.

A provider is foreign code, so as in OpenSSH it runs in the helper and nowhere else.  A helper is
started for one provider, and has the token's session as long as it lives.  OpenSSH's
ssh-pkcs11-client.c and ssh-pkcs11-helper.c.

Its way to sign has changed.  Up to OpenSSH 10.0 it is given what the token itself signs, which its
client has prepared, and gives the bare signature; since then it is given all that is to be signed,
with the algorithm, and gives a signature as ssh sends it.  The two can't be told apart but by their
signatures.  So requests are made that both can read: of what follows the flags the older one reads
nothing, and the newer one takes the flags of 0 for an empty algorithm.
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import time
from typing import TypeVar

from .. import log, programs
from ..confine import process
from ..protocol.algorithms import ALGORITHMS
from ..protocol.messages import ListedKey, Type
from ..protocol.refusals import Cause
from ..protocol.wire import (
    BYTE,
    STRING,
    TEXT,
    UINT32,
    Codec,
    ProtocolError,
    Reader,
    counted,
    record,
)
from . import helpers
from .helpers import HelperError

T = TypeVar("T")

# A pinpad waits for the user, and some tokens to be touched.
_SECONDS = 120

# ssh-pkcs11-helper.c: MAX_MSG_LENGTH, beyond which it ends; ssh-pkcs11-client.c: what it takes.
_LONGEST_REQUEST = 10240
_LONGEST_ANSWER = 256 * 1024

# authfd.h: SSH_AGENT_FAILURE, SSH2_AGENT_FAILURE.
_FAILURES = (5, 30)

_LENGTH = struct.Struct(">I")
_KEYS = counted(record(ListedKey))

# ssh-pkcs11.h: SSH_PKCS11_ERR_…; 0 where it has found no key,
# which is also what it says of a PIN that the token has refused.
_ERRORS = {
    0: ("no keys for ssh were found: there are none, or the PIN is wrong", Cause.PIN),
    2: ("wrong PIN", Cause.PIN),
    3: ("no token is there", Cause.TOKEN),
    4: ("it wants a PIN, and none was given", Cause.PIN),
    5: ("its PIN is locked", Cause.PIN),
}
_OTHER_ERROR = (
    "it can't be loaded, or gives an error: OpenSSH's own line in the log says which",
    Cause.TOKEN,
)


class Broken(HelperError):
    """The helper has ended, hangs, or talks out of turn: nothing more is to be had from it."""


class TooLong(HelperError):
    """The helper would end if it were sent that."""


class Helper:
    """A helper that runs.  It ends with this process, however that ends."""

    def __init__(self) -> None:
        """Start it.  Raises HelperError."""
        _, verbose = log.settings()
        name = helpers.program("ssh-pkcs11-helper")
        words = [name, "-vvv"] if verbose else [name]
        self._stream, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(words, theirs.fileno())
        except OSError as error:
            raise HelperError(f"{name}: {error.strerror}") from error

    def fileno(self) -> int:
        """Where it is heard; there is nothing to be heard from one that nobody has asked."""
        return self._stream.fileno()

    def insert(self, provider: str, pin: memoryview) -> tuple[ListedKey, ...]:
        """Have it load a provider's library; the keys of its tokens, with their labels.

        `pin` is overwritten.  Raises HelperError.
        """
        before = BYTE.write(Type.ADD_SMARTCARD_KEY) + TEXT.write(provider) + UINT32.write(len(pin))
        # Made as long as it will be: what grows may leave a copy behind.
        frame = memoryview(bytearray(len(before) + len(pin)))
        frame[: len(before)] = before
        frame[len(before) :] = pin
        try:
            kind, reader = self._ask(frame)
        finally:
            for secret in (pin, frame):
                secret[:] = bytes(len(secret))
        if kind in _FAILURES:
            code = _whole(UINT32, reader)
            text, cause = _ERRORS.get(code, _OTHER_ERROR)
            raise HelperError(f"{provider}: {text}", cause)
        if kind != Type.IDENTITIES_ANSWER:
            raise Broken(f"an answer of type {kind} to a request for a token's keys")
        return _whole(_KEYS, reader)

    def sign(self, blob: bytes, data: bytes, algorithm: str) -> bytes | None:
        """What a newer helper makes of data as it is; None if it refuses.  Raises HelperError."""
        # An algorithm is named where a key has several, as OpenSSH does.
        named = algorithm if ALGORITHMS[algorithm].key_type == "ssh-rsa" else ""
        return self._sign(blob, data, TEXT.write(named))

    def sign_prepared(self, blob: bytes, prepared: bytes) -> bytes | None:
        """What an older helper makes of data as the token signs it; None if it refuses.

        Raises HelperError.
        """
        return self._sign(blob, prepared, UINT32.write(0))

    def _sign(self, blob: bytes, data: bytes, how: bytes) -> bytes | None:
        request = BYTE.write(Type.SIGN_REQUEST) + STRING.write(blob) + STRING.write(data)
        kind, reader = self._ask(request + how + UINT32.write(0))
        if kind in _FAILURES:
            return None
        if kind != Type.SIGN_RESPONSE:
            raise Broken(f"an answer of type {kind} to a request for a signature")
        return _whole(STRING, reader)

    def _ask(self, request: bytes | memoryview) -> tuple[int, Reader]:
        """An answer's type, and what follows it.  Raises HelperError."""
        if len(request) > _LONGEST_REQUEST:
            raise TooLong(f"OpenSSH's ssh-pkcs11-helper takes {_LONGEST_REQUEST} bytes at most")
        deadline = time.monotonic() + _SECONDS
        if _ready(self._stream, 0):
            raise Broken("it has ended, or talks out of turn")
        try:
            self._stream.sendall(_LENGTH.pack(len(request)))  # a socket has room for one
            self._stream.sendall(request)
            (length,) = _LENGTH.unpack(self._receive(_LENGTH.size, deadline))
            if not 1 <= length <= _LONGEST_ANSWER:
                raise Broken(f"an answer of {length} bytes")
            reader = Reader(self._receive(length, deadline))
        except OSError as error:
            raise Broken(f"it has ended: {error.strerror}") from error
        return BYTE.read(reader), reader

    def _receive(self, length: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < length:
            left = deadline - time.monotonic()
            if left <= 0 or not _ready(self._stream, left):
                raise Broken(f"it hasn't answered in {_SECONDS} seconds")
            chunk = self._stream.recv(length - len(received))
            if not chunk:
                raise Broken("it has ended")
            received += chunk
        return bytes(received)


def _start(words: list[str], stream: int) -> subprocess.Popen[bytes]:
    """Start it with `stream` as its input and output.  Raises OSError."""
    streams = {"stdin": stream, "stdout": stream}
    try:
        return programs.start_hidden(words, process.die_with_parent, **streams)
    except programs.CannotHide as error:
        log.warning(f"other programs of yours can look into {words[0]}: {error}")
        return programs.start(words, preexec_fn=process.die_with_parent, **streams)


def _ready(stream: socket.socket, seconds: float) -> bool:
    """Whether there is something to be read by then, or it has ended."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _whole(codec: Codec[T], reader: Reader) -> T:
    """Raises Broken."""
    try:
        value = codec.read(reader)
        reader.expect_end()
    except ProtocolError as error:
        raise Broken(f"a malformed answer: {error}") from error
    return value
