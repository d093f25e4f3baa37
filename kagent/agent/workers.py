"""The front's way to the keeper and to the one-shot workers."""

from __future__ import annotations

import os
import socket

import trio

from ..keeper.jobs import Answer, Job, Kind, SignJob, unpack_answer
from ..protocol.messages import MAX_PAYLOAD

# A worker ends itself long before that; this is for when there is none.
_SECONDS = 60


class Workers:
    """The front's ends of the keeper's socket and of the one that sign workers wait at."""

    def __init__(self, control: socket.socket, signing: socket.socket) -> None:
        self._control = control
        self._signing = signing
        # Room for the largest message in one packet.
        signing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PAYLOAD)

    async def load(
        self, client: socket.socket, message_type: int, body_length: int
    ) -> Answer | None:
        """Have a worker read `body_length` bytes from `client` and load the key.

        None if the worker died first: how much it has read of the body is then unknown.
        """
        job = Job(Kind.LOAD, message_type, body_length)
        return await _ask(self._control, job.pack(), [client.fileno()])

    async def forget(self, description: str) -> Answer | None:
        """Have the keeper destroy the sealed key of the identity with that description."""
        return await _ask(self._control, Job(Kind.FORGET, description=description).pack(), [])

    async def forget_all(self) -> Answer | None:
        """Have the keeper destroy all sealed keys."""
        return await _ask(self._control, Job(Kind.FORGET_ALL).pack(), [])

    async def sign(self, job: SignJob) -> Answer | None:
        """Have a worker sign; None if it died."""
        return await _ask(self._signing, job.pack(), [])


async def _ask(channel: socket.socket, packet: bytes, descriptors: list[int]) -> Answer | None:
    answer, theirs = os.pipe2(os.O_CLOEXEC)
    async with trio.lowlevel.FdStream(answer) as pipe:
        try:
            await _send(channel, packet, [*descriptors, theirs])
        finally:
            os.close(theirs)
        with trio.move_on_after(_SECONDS):
            return unpack_answer(b"".join([chunk async for chunk in pipe]))
    return None


async def _send(channel: socket.socket, packet: bytes, descriptors: list[int]) -> None:
    while True:
        try:
            socket.send_fds(channel, [packet], descriptors)
            return
        except BlockingIOError:
            await trio.lowlevel.wait_writable(channel)
