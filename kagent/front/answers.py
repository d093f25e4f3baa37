"""A client's answers: the one place where a message becomes bytes that are sent."""

from __future__ import annotations

import socket

import trio

from ..protocol.messages import Message, encode


class Answers:
    """One after the other: each is begun, and finished before the next."""

    __slots__ = ("_client", "_unsent")

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._unsent = b""

    def begin(self, message: Message) -> None:
        """Send as much of it as goes without waiting; for any thread.

        A thread that has signed need not wait for the event loop, nor the client.  Raises OSError.
        """
        frame = encode(message)
        try:
            self._unsent = frame[self._client.send(frame) :]
        except BlockingIOError:
            self._unsent = frame

    async def finish(self) -> None:
        """Send the rest.  Raises OSError."""
        while self._unsent:
            try:
                self._unsent = self._unsent[self._client.send(self._unsent) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._client)
