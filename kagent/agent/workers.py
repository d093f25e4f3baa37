"""The front's way to the keeper and to the one-shot workers."""

from __future__ import annotations

import os
import socket

import trio

from ..keeper.jobs import Answer, Job, Kind, SignJob, unpack_answer
from ..keeper.questions import Fetch, Who
from ..protocol.messages import MAX_PAYLOAD
from ..protocol.wire import Record

# A worker ends itself long before that; this is for when there is none.
_SECONDS = 60.0
_SECONDS_OF_OTHERS = 180.0


class Workers:
    """The front's ends of three sockets: to the keeper, the sign workers and the lookout."""

    def __init__(
        self, control: socket.socket, signing: socket.socket, looking: socket.socket
    ) -> None:
        self._control = control
        self._signing = signing
        self._looking = looking
        for channel in (control, signing, looking):
            channel.setblocking(False)
            # Room for the largest message in one packet.
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PAYLOAD)

    async def load(
        self,
        client: socket.socket,
        message_type: int,
        body_length: int,
        *,
        bound: bool,
        locked: bool,
    ) -> Answer | None:
        """Have a worker read `body_length` bytes from `client` and load the key.

        None if the worker died first: how much it has read of the body is then unknown.
        """
        job = Job(Kind.LOAD, message_type, bound, locked, body_length)
        return await _ask(self._control, job.pack(), [client.fileno()])

    async def forget(self, description: str) -> Answer | None:
        """Have the keeper destroy the sealed key of the identity with that description."""
        return await _ask(self._control, Job(Kind.FORGET, description=description).pack(), [])

    async def forget_all(self) -> Answer | None:
        """Have the keeper destroy all sealed keys."""
        return await _ask(self._control, Job(Kind.FORGET_ALL).pack(), [])

    async def send_out(self, kind: Kind, request: Record) -> Answer | None:
        """Have a worker do an errand; None if it died."""
        return await self._errand(kind, request, [], _SECONDS)

    async def ask_user(self, kind: Kind, request: Record, client: socket.socket) -> Answer | None:
        """Have a worker do what needs the user, as long as `client` is there; None if it died."""
        return await self._errand(kind, request, [client.fileno()], _SECONDS_OF_OTHERS)

    async def fetch(self, request: Fetch) -> Answer | None:
        """Have a worker have the kernel fetch a key; None if it died."""
        return await self._errand(Kind.FETCH, request, [], _SECONDS_OF_OTHERS)

    async def _errand(
        self, kind: Kind, request: Record, descriptors: list[int], seconds: float
    ) -> Answer | None:
        body = request.write()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # As much as a message can have must fit in, since nobody reads yet.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PAYLOAD)
            ours.setblocking(False)
            if ours.send(body) < len(body):
                raise OSError("an errand's request doesn't fit into a socket")
            job = Job(kind, body_length=len(body))
            return await _ask(self._control, job.pack(), [theirs.fileno(), *descriptors], seconds)

    async def look(self, request: Who) -> Answer | None:
        """Have the lookout tell who asks; None if it died.  Raises OSError."""
        return await _ask(self._looking, request.write(), [])

    async def sign(self, job: SignJob) -> Answer | None:
        """Have a worker sign; None if it died."""
        return await _ask(self._signing, job.pack(), [])


async def _ask(
    channel: socket.socket, packet: bytes, descriptors: list[int], seconds: float = _SECONDS
) -> Answer | None:
    pipe, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            await _send(channel, packet, [*descriptors, theirs])
        finally:
            os.close(theirs)
        os.set_blocking(pipe, False)
        with trio.move_on_after(seconds):
            return unpack_answer(await _receive(pipe))
    finally:
        os.close(pipe)
    return None


async def _send(channel: socket.socket, packet: bytes, descriptors: list[int]) -> None:
    while True:
        try:
            socket.send_fds(channel, [packet], descriptors)
            return
        except BlockingIOError:
            await trio.lowlevel.wait_writable(channel)


async def _receive(pipe: int) -> bytes:
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(pipe, MAX_PAYLOAD)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(pipe)
            continue
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
