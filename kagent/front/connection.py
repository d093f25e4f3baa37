"""One client: frames in, frames out, in order."""

from __future__ import annotations

import struct

import trio

from .. import log
from ..protocol.messages import MAX_PAYLOAD, Failure, Type
from .peer import Peer
from .requests import Requests

# A frame's length and type: all that is read before it is decided who reads the body.
_HEADER = struct.Struct(">IB")
_CARRIES_SECRET = (
    *(Type.ADD_IDENTITY, Type.ADD_ID_CONSTRAINED),
    # A token's PIN; one comes even where the keys are to go.
    *(Type.ADD_SMARTCARD_KEY, Type.ADD_SMARTCARD_KEY_CONSTRAINED, Type.REMOVE_SMARTCARD_KEY),
)


class Disconnected(Exception):
    """The client went away, or sent what ends the connection."""


class Connection:
    """Reads five header bytes of a frame first, since a private key or a PIN may follow.

    Such a body is never read here: the loader passes the socket on to a worker.
    """

    __slots__ = ("_client", "_peer", "_requests")

    def __init__(self, peer: Peer, requests: Requests) -> None:
        self._client = peer.client
        self._requests = requests
        self._peer = peer

    async def serve(self) -> None:
        """Answer until the client goes.  Nothing that it sends raises from here."""
        with self._client:
            try:
                while True:
                    # Waiting even where data is there already gives other clients their turn.  And
                    # most clients wait most of the time: here, where it costs the least memory.
                    await trio.lowlevel.wait_readable(self._client)
                    await self._serve_one()
            except (Disconnected, OSError) as error:
                if str(error):
                    log.debug(f"connection ended: {error}")
            except Exception as error:
                # A fault of ours costs the client that met it its connection, and no other.
                log.error(f"connection ended by a fault: {type(error).__name__}: {error}")

    async def _serve_one(self) -> None:
        length, kind = _HEADER.unpack(await self._receive(_HEADER.size))
        if not 1 <= length <= MAX_PAYLOAD:
            raise Disconnected(f"a message of {length} bytes")
        if kind in _CARRIES_SECRET:
            answer = await self._requests.add(self._peer, kind, length - 1)
            self._peer.answers.begin(answer or Failure())
            await self._peer.answers.finish()
            if answer is None:
                raise Disconnected("lost in the middle of a key")
        else:
            payload = bytes((kind,)) + await self._receive(length - 1)
            if answer := await self._requests.answer(self._peer, payload):
                self._peer.answers.begin(answer)
            await self._peer.answers.finish()

    async def _receive(self, length: int) -> bytes:
        chunks = []
        while length:
            try:
                chunk = self._client.recv(length)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._client)
                continue
            if not chunk:
                raise Disconnected
            chunks.append(chunk)
            length -= len(chunk)
        return b"".join(chunks)
