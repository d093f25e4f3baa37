"""A client, and what is remembered of it as long as it is connected."""

from __future__ import annotations

import socket
import struct

from ..custody import clock
from ..custody.identity import Identity
from ..jobs.causes import Cause
from ..jobs.jobs import Answer, Refused
from ..jobs.questions import ClientProcess, Offering, Origin
from ..protocol.refusals import Explained
from ..protocol.wire import TEXT, UINT32, field
from .answers import Answers
from .sessions import Sessions

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid.  unix(7)


class IdentityBehind(Identity):
    """A key of the agent behind of that number, at `socket`.  Its record is never kept."""

    socket: str = field(TEXT, default="")
    number: int = field(UINT32, default=0)

    @property
    def lives(self) -> str:
        """As of any identity."""
        return f"behind {self.socket}"


class Refusal(Explained):
    """The request is answered with FAILURE; the text goes to the log and to who asks."""


class RefusalFromAfar(Refusal):
    """The same to another host, which is only told `told`: what is here isn't its to know."""

    def __init__(self, error: Refusal, told: str) -> None:
        super().__init__(error.cause, str(error))
        self.told = told


def refusal(answer: Answer | None, otherwise: str) -> Refusal:
    """What a worker's answer means that isn't what was asked for; `otherwise` if it has died."""
    if isinstance(answer, Refused):
        return Refusal(answer.cause, answer.reason)
    return Refusal(Cause.FAULT, otherwise)


class Introduction:
    """What agents behind are told of a client, and what they have told for it."""

    __slots__ = ("binds", "keys", "via")

    def __init__(self) -> None:
        self.via: tuple[bytes, ...] = ()  # the kagents that this one is behind
        # The contents of all session-binds, in order; None if they are too many to be passed on.
        self.binds: list[bytes] | None = []
        self.keys: dict[bytes, IdentityBehind] = {}  # by blob, as they were listed last


class Peer:
    """A connected client."""

    __slots__ = (
        *("answers", "behind", "client", "explanation", "offering", "origin"),
        *("process", "sessions", "uid"),
    )

    def __init__(self, client: socket.socket, process: ClientProcess, uid: int) -> None:
        self.client = client
        self.process = process
        self.uid = uid
        self.answers = Answers(client)
        self.sessions = Sessions()
        self.origin: Origin | None = None  # once it is known; with the hosts that were bound then
        self.offering: Offering | None = None  # of the host that was listed to last
        self.explanation = ""  # of what became of the last request
        self.behind = Introduction()

    @classmethod
    def of(cls, client: socket.socket) -> Peer:
        """Who has just connected."""
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        return cls(client, ClientProcess(pid, clock.now()), uid)
