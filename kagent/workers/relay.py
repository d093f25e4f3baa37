"""Asks one agent behind kagent one thing: which keys it has, or for a signature.

An agent behind may be slow, endless or hostile, or its place taken by somebody else.  So each
question has a process and a connection of its own: that agent's answers are read by nobody else,
and who takes the process over has nothing but the connection to the agent that did it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TypeVar

from ..jobs import roles
from ..jobs.causes import Cause
from ..jobs.jobs import KeysBehind, Refused, Signed
from ..jobs.questions import ListBehind, SignBehind
from ..private.verify import BadSignature, check_usable, verify
from ..protocol.algorithms import WEBAUTHN, algorithm_of
from ..protocol.messages import (
    MAX_PAYLOAD,
    SESSION_BIND,
    VIA,
    Extension,
    ExtensionResponse,
    IdentitiesAnswer,
    ListedKey,
    Message,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Via,
    decode,
    encode,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import UINT32, ProtocolError
from ..text import printable

# The user may have to insert a card; and to confirm, or to type a PIN.
_SECONDS_TO_LIST, _SECONDS_TO_SIGN = 5, 120
_SECONDS_TO_CONNECT = 4
_MOMENT = 0.05

_MOST_KEYS = 256  # a server lets a client try less than ten
_LONGEST_COMMENT = 1000  # characters
# FAILURE, EXTENSION_FAILURE, and what older and other agents say for it (authfd.c).
_FAILURES = (b"\x05", b"\x1c", b"\x1e", b"\x66")
_BEHIND_ITSELF = encode(ExtensionResponse(VIA, b""))[4:]
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid.  unix(7)

M = TypeVar("M", bound=Message)


class Unusable(Exception):
    """What there is at the socket is of no use; says why."""


class AgentBehind:
    """A connection to an agent behind; or why there is none, which is raised when it is asked."""

    def __init__(self, path: str) -> None:
        """Connect, and lose all system calls that this takes.  Raises CannotConfine."""
        self._fault = ""
        self._since = time.monotonic()
        self._until = self._since + _SECONDS_TO_CONNECT
        self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(path)
            self._check_owner()
        except TimeoutError:
            self._fault = "too many others wait for it"
        except OSError as error:
            self._fault = f"no agent there: {error.strerror or error}"
        except Unusable as error:
            self._fault = str(error)
        roles.RELAY.confine()

    def _connect(self, path: str) -> None:
        """Without a time limit it could take for ever, and with one it doesn't wait at all."""
        while True:
            self._wait_no_longer()
            try:
                return self._stream.connect(path)
            except BlockingIOError:
                time.sleep(_MOMENT)

    def _check_owner(self) -> None:
        """Whoever may write to the folder of the socket can put another one there."""
        about = self._stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(about)
        if uid not in (0, os.getuid()):
            raise Unusable(f"it is another user's, of uid {uid}")

    def answer(self, request: ListBehind) -> KeysBehind | Signed | Refused:
        """The job of asking it."""
        signing = isinstance(request, SignBehind)
        self._until = self._since + (_SECONDS_TO_SIGN if signing else _SECONDS_TO_LIST)
        try:
            if self._fault:
                raise Unusable(self._fault)
            self._introduce(request)
            return self._signature(request) if isinstance(request, SignBehind) else self._keys()
        except TimeoutError:
            return Refused(Cause.BEHIND, "it did not answer in time")
        except OSError as error:
            return Refused(Cause.BEHIND, f"it can't be asked: {error.strerror or error}")
        except (ProtocolError, BadSignature) as error:
            return Refused(Cause.BEHIND, f"its answer is of no use: {error}")
        except Unusable as error:
            return Refused(Cause.BEHIND, str(error))

    def _introduce(self, request: ListBehind) -> None:
        """Tell it whom this is for.  What it says to that doesn't matter: few know what it is."""
        if self._exchange(Extension(VIA, Via(request.via).write())).startswith(_BEHIND_ITSELF):
            raise Unusable(
                "this kagent is behind itself there, or behind too many others: end an agent of "
                "that circle, and start it without --behind"
            )
        # Also what was refused here: what was tried counts for the constraints of its keys.
        for contents in request.binds:
            self._exchange(Extension(SESSION_BIND, contents))

    def _keys(self) -> KeysBehind:
        answer = self._ask(RequestIdentities(), IdentitiesAnswer)
        told = {one.blob: one.comment for one in answer.identities}
        keys = [
            ListedKey(blob, printable(comment[:_LONGEST_COMMENT])[:_LONGEST_COMMENT])
            for blob, comment in told.items()
            if _can_be_verified(blob)
        ][:_MOST_KEYS]
        return KeysBehind(tuple(keys), len(told) - len(keys))

    def _signature(self, request: SignBehind) -> Signed:
        key = PublicKey.parse(request.blob)
        asked = SignRequest(request.blob, request.data, request.flags)
        signature = self._ask(asked, SignResponse).signature
        made = verify(key, signature, request.data)
        wanted = algorithm_of(key.plain_type, request.flags)
        # An agent in a browser can have a FIDO token sign in no other way, and servers take that.
        if made not in (wanted, WEBAUTHN):
            raise Unusable(f"it has signed with {made}, not with {wanted}")
        return Signed(signature)

    def _ask(self, message: Message, expected: type[M]) -> M:
        payload = self._exchange(message)
        if payload[:1] in _FAILURES:
            raise Unusable("it refused")
        answer = decode(payload)
        if not isinstance(answer, expected):
            raise Unusable(f"it answered {answer.type.name}")
        return answer

    def _exchange(self, message: Message) -> bytes:
        self._wait_no_longer()
        self._stream.sendall(encode(message))
        length = UINT32.parse(self._receive(4))
        if not 1 <= length <= MAX_PAYLOAD:
            raise ProtocolError(f"a message of {length} bytes")
        return self._receive(length)

    def _receive(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            self._wait_no_longer()
            chunk = self._stream.recv(length - len(received))
            if not chunk:
                raise Unusable("it hung up")
            received += chunk
        return bytes(received)

    def _wait_no_longer(self) -> None:
        """For all together, since an agent may send a byte now and then."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._stream.settimeout(left)


def _can_be_verified(blob: bytes) -> bool:
    """Whether a signature by that key can be checked: its type is known, and the library's."""
    try:
        check_usable(PublicKey.parse(blob))
    except (ProtocolError, BadSignature):
        return False
    return True
