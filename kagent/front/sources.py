"""Keys that come from where the user's configuration says, at the first signature.

A worker gets a key there, and asks for its passphrase if it has one; from then on it is a load like
that of any other key, and ends as that does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..custody import clock
from ..custody.identity import Identity
from ..custody.store import StillThere
from ..jobs.causes import Cause, cause_of
from ..jobs.jobs import Answer, Loaded, Refused
from ..jobs.sockets import given_up
from ..protocol.wire import ProtocolError
from .channels import Workers
from .holding import Holding, tell
from .peer import Peer, Refusal

# After a no, or a wrong passphrase, for which time it is everybody's answer: a program that goes on
# asking must not leave the user with nothing but questions.
_SECONDS_OF_REFUSAL = 3.0


class SourceIdentity(Identity):
    """A key that isn't fetched yet; `why` is where from.  Its record is never kept."""

    @property
    def lives(self) -> str:
        """As of any identity."""
        return self.why


class _Arrival:
    """A key that is being fetched, and what became of that for all who wait for it.

    A no to another host is meant for it: who asks here isn't answered with that.
    """

    def __init__(self, peer: Peer) -> None:
        self.over = trio.Event()
        self.refusal: Refusal | None = None
        self.until = 0.0  # of trio's clock, for how long that is the answer
        self._forwarded = peer.sessions.forwarded

    def answers(self, peer: Peer) -> bool:
        """Whether what became of it is the answer for that client too."""
        return peer.sessions.forwarded or not self._forwarded


class Sources:
    """Has a key fetched once, however many wait for it."""

    def __init__(self, workers: Workers, holding: Holding) -> None:
        self._workers = workers
        self._holding = holding
        self._under_way: dict[bytes, _Arrival] = {}
        self._refused: dict[bytes, _Arrival] = {}

    async def fetch(
        self, peer: Peer, blob: bytes, ask: Callable[[int], Awaitable[Answer | None]]
    ) -> None:
        """Have the key of that public half fetched and held, if that isn't done meanwhile.

        `ask` has a worker get it, as the load of the number that it is given.  Raises Refusal; the
        same for all who have waited, but where it was given up since the one for whom the user was
        asked has gone.
        """
        while arrival := self._under_way.get(blob):
            await arrival.over.wait()
            if arrival.refusal and arrival.answers(peer):
                raise Refusal(arrival.refusal.cause, str(arrival.refusal))
        if self._holding.holds(blob):  # meanwhile
            return
        last = self._refused.get(blob)
        if last and last.refusal and last.answers(peer) and trio.current_time() < last.until:
            raise Refusal(last.refusal.cause, f"a moment ago: {last.refusal}")
        arrival = self._under_way[blob] = _Arrival(peer)
        try:
            await self._fetch(peer, blob, ask)
        except Refusal as error:
            if not given_up(peer.client.fileno()):
                arrival.refusal, self._refused[blob] = error, arrival
                arrival.until = trio.current_time() + _SECONDS_OF_REFUSAL
            raise
        finally:
            del self._under_way[blob]
            arrival.over.set()

    async def _fetch(
        self, peer: Peer, blob: bytes, ask: Callable[[int], Awaitable[Answer | None]]
    ) -> None:
        number = self._holding.new_number()
        answer = await ask(number)
        try:
            match answer:
                case Loaded(loaded) if loaded.blob == blob:
                    async with self._holding.changing:
                        if self._holding.holds(blob):  # meanwhile, under constraints of its own
                            await self._workers.drop(number)
                            return
                        beginning = loaded.beginning(clock.now())
                        tell(await self._holding.hold(peer, number, beginning))
                    return
                case Refused():
                    why_not = Refusal(answer.cause, answer.reason)
                case _:
                    why_not = Refusal(Cause.SOURCE, "the key could not be fetched: its worker died")
        except (StillThere, OSError, ProtocolError) as error:
            raise Refusal(cause_of(error), f"the key is not held: {error}") from error
        await self._workers.drop(number)
        raise why_not
