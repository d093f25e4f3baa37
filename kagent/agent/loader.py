"""Hands a client's socket to the keeper, for a worker to read the private key that comes."""

from __future__ import annotations

import os
import socket

import trio

from ..keeper.jobs import Answer, Job, Kind, unpack_answer


class Loader:
    """The front's end of the control socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    async def load(
        self, client: socket.socket, message_type: int, body_length: int
    ) -> Answer | None:
        """Have a worker read `body_length` bytes from `client` and load the key.

        None if the worker died first: how much it has read of the body is then unknown.
        """
        job = Job(Kind.LOAD, message_type, body_length).pack()
        answer, theirs = os.pipe2(os.O_CLOEXEC)
        async with trio.lowlevel.FdStream(answer) as pipe:
            try:
                await self._send(job, [client.fileno(), theirs])
            finally:
                os.close(theirs)
            return unpack_answer(b"".join([chunk async for chunk in pipe]))

    async def _send(self, job: bytes, descriptors: list[int]) -> None:
        while True:
            try:
                socket.send_fds(self._control, [job], descriptors)
                return
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._control)
