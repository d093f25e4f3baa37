"""A client, and what is remembered of it as long as it is connected."""

from __future__ import annotations

import socket
import struct

from ..custody import clock
from ..jobs.questions import ClientProcess, Origin
from .answers import Answers
from .sessions import Sessions

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid.  unix(7)


class Refusal(Exception):
    """The request is answered with FAILURE; the text goes to the log and to who asks."""


class Peer:
    """A connected client."""

    __slots__ = ("answers", "client", "explanation", "origin", "process", "sessions", "uid")

    def __init__(self, client: socket.socket, process: ClientProcess, uid: int) -> None:
        self.client = client
        self.process = process
        self.uid = uid
        self.answers = Answers(client)
        self.sessions = Sessions()
        self.origin: Origin | None = None  # once it is known; with the hosts that were bound then
        self.explanation = ""  # of what became of the last request

    @classmethod
    def of(cls, client: socket.socket) -> Peer:
        """Who has just connected."""
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        return cls(client, ClientProcess(pid, clock.now()), uid)
