"""Agents behind this one: which keys they have for a client, and signatures by those.

Each question goes by a worker of its own, over a connection of its own (workers/relay.py), on which
that agent is told first what this client has told: the sessions that it is bound to, so that the
agent's own limits hold.  So nothing that one client says counts for another, and no answer of an
agent's can be taken for that of another.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import trio

from .. import log
from ..custody.identity import Custody
from ..jobs.causes import Cause
from ..jobs.jobs import Answer, KeysBehind, Kind, Refused
from ..jobs.questions import ListBehind, SignBehind
from ..protocol.messages import KAGENT_ID_LENGTH, SignRequest, Via
from ..protocol.wire import ProtocolError
from .channels import Workers
from .peer import IdentityBehind, Peer, Refusal
from .settings import Settings
from .turns import Turns

# Questions at once: as each waits for another agent, some that hang keep nobody out.
_MOST_LISTS, _MOST_LISTS_EACH = 16, 8
_MOST_SIGNATURES, _MOST_SIGNATURES_EACH = 16, 4

# That a worker takes for a list, which ends itself before that, and a client's list with the wait
# for a turn.
_SECONDS_TO_ANSWER, _SECONDS_TO_LIST = 6.0, 8.0

# An agent that took so long without telling its keys isn't asked for them again for a while, so
# that not each login waits for it.
_SLOW = 3.0
_PAUSE = 20.0

# Session-binds of a connection, which are passed on with each question; and their bytes together.
# More than half of them can't be good.
_MOST_BINDS, _LONGEST_BINDS = 32, 65536
_MOST_KAGENTS = 8  # in a row, each behind the one before it


class Behind:
    """The agents that this one was started with, in that order."""

    def __init__(self, workers: Workers, settings: Settings) -> None:
        self._workers = workers
        self._sockets = settings.behind
        self._constraints = settings.confirm_behind
        self._own_id = os.urandom(KAGENT_ID_LENGTH)
        self._listing = Turns(_MOST_LISTS, _MOST_LISTS_EACH)
        self._signing = Turns(_MOST_SIGNATURES, _MOST_SIGNATURES_EACH)
        self._paused_until = [-math.inf for _ in self._sockets]
        self._faults = ["" for _ in self._sockets]  # of the last list of each, in words
        self._left_out = [0 for _ in self._sockets]  # how many keys, of the last list of each

    def bind(self, peer: Peer, contents: bytes) -> None:
        """Keep a session-bind of that client, good or not.

        An attempt that failed counts for the agents behind as it does here.
        """
        peer.behind.keys.clear()
        binds = peer.behind.binds
        if binds is not None and contents not in binds:
            binds.append(contents)
            if len(binds) > _MOST_BINDS or sum(map(len, binds)) > _LONGEST_BINDS:
                peer.behind.binds = None

    def comes_via(self, peer: Peer, contents: bytes) -> bool:
        """Note through which kagents a client comes; False if this one is behind itself.

        Raises ProtocolError.
        """
        via = Via.parse(contents).kagents
        if any(len(one) != KAGENT_ID_LENGTH for one in via):
            raise ProtocolError("not an id of a kagent")
        peer.behind.via = via
        return self._own_id not in via and len(via) <= _MOST_KAGENTS

    async def identities(self, peer: Peer) -> Iterable[IdentityBehind]:
        """The keys that this client may have of them; none of an agent that doesn't tell.

        Of a key that several have, that of the first.
        """
        if peer.behind.binds is None:
            return ()
        found: list[list[IdentityBehind]] = [[] for _ in self._sockets]

        async def ask(number: int) -> None:
            found[number] = await self._list(peer, number)

        with trio.move_on_after(_SECONDS_TO_LIST) as waiting:
            async with trio.open_nursery() as asking:
                for number in range(len(self._sockets)):
                    asking.start_soon(ask, number)
        if waiting.cancelled_caught:
            log.warning("the agents behind were not all asked: too many others wait for them")
        keys: dict[bytes, IdentityBehind] = {}
        for identity in (one for of_one in found for one in of_one):
            keys.setdefault(identity.blob, identity)
        peer.behind.keys = keys
        return keys.values()

    async def find(self, peer: Peer, blob: bytes) -> IdentityBehind | None:
        """The key of that blob, as it was listed on this connection, or is now.  Raises Refusal."""
        if peer.behind.binds is None:
            raise Refusal(
                Cause.BINDING,
                "too much was bound to the connection for the agents behind to be told",
            )
        if blob not in peer.behind.keys:
            await self.identities(peer)
        return peer.behind.keys.get(blob)

    async def sign(self, peer: Peer, request: SignRequest) -> Answer | None:
        """Have the agent that has the key sign.  Raises Refusal, OSError."""
        identity = peer.behind.keys.get(request.blob)
        if identity is None:
            raise Refusal(Cause.CHANGED, "the key was removed meanwhile")
        via, binds = self._told(peer)
        question = SignBehind(via, binds, request.blob, request.data, request.flags)
        async with self._signing.of(peer.process.pid):
            answer = await self._workers.ask_behind(Kind.SIGN_BEHIND, identity.number, question)
        if isinstance(answer, Refused):
            return Refused(Cause.BEHIND, f"{self._name(peer, identity.number)}: {answer.reason}")
        return answer

    def faults(self, peer: Peer) -> str:
        """Of which agents the keys aren't known now, and why; empty if there are none."""
        return "; ".join(
            f"{self._name(peer, number)}: {fault}"
            for number, fault in enumerate(self._faults)
            if fault
        )

    def _name(self, peer: Peer, number: int) -> str:
        if peer.sessions.attempted:
            return "an agent behind"  # other hosts are told nothing of the paths here
        return f"the agent behind {self._sockets[number]}"

    async def _list(self, peer: Peer, number: int) -> list[IdentityBehind]:
        socket, started = self._sockets[number], trio.current_time()
        answer: Answer | None = None
        try:
            question = ListBehind(*self._told(peer))
            async with self._listing.of(peer.process.pid):
                started = trio.current_time()
                if started < self._paused_until[number]:
                    return []
                with trio.move_on_after(_SECONDS_TO_ANSWER):
                    answer = await self._workers.ask_behind(Kind.LIST_BEHIND, number, question)
        except OSError as error:
            answer = Refused(Cause.BEHIND, str(error))
        if not isinstance(answer, KeysBehind):
            self._fails(number, answer, trio.current_time() - started)
            return []
        if answer.left_out and answer.left_out != self._left_out[number]:
            log.warning(
                f"{answer.left_out} keys of the agent behind {socket} are not listed: of no type "
                "that can be verified here, or too many"
            )
        self._left_out[number] = answer.left_out
        if self._faults[number]:
            log.info(f"the agent behind {socket} answers")
        self._faults[number] = ""
        return [
            IdentityBehind(
                one.blob,
                one.comment,
                Custody.BEHIND,
                constraints=self._constraints,
                socket=socket,
                number=number,
            )
            for one in answer.keys
        ]

    def _fails(self, number: int, answer: Answer | None, seconds: float) -> None:
        fault = answer.reason if isinstance(answer, Refused) else "the relay worker died"
        if seconds >= _SLOW:
            self._paused_until[number] = trio.current_time() + _PAUSE
            fault += f"; not asked again for {_PAUSE:.0f} seconds"
        if fault != self._faults[number]:  # else each login would say so
            log.warning(f"nothing is listed of the agent behind {self._sockets[number]}: {fault}")
        self._faults[number] = fault

    def _told(self, peer: Peer) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """What each agent is told of a client first: through which kagents it comes, and its
        session-binds."""
        assert peer.behind.binds is not None
        return (*peer.behind.via, self._own_id), tuple(peer.behind.binds)
