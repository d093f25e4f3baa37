"""Identities that are configured: what there are, and their keys, fetched when they are needed."""

from __future__ import annotations

import math

import trio

from ..custody.anchor import Held
from ..jobs.jobs import Fetched, Kind, Offered, Rule
from ..jobs.questions import Fetch, Offer
from ..keyctl import AsymmetricKey
from .channels import Workers
from .peer import refusal
from .turns import Turns

# Most users have nothing configured, and a look costs a worker.
_SECONDS_OF_NOTHING = 1.0
# At once: the keeper, which starts a worker for each, does so for other requests too, in order.
_MOST_OFFERS, _MOST_OFFERS_EACH = 4, 2
_MOST_FETCHES, _MOST_FETCHES_EACH = 8, 4
_NOTHING = Offered(())


class Fetching:
    """Has a key fetched once, however many wait for it."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._held: dict[bytes, Held] = {}  # only what a worker has found to be the right key
        self._under_way: dict[bytes, trio.Event] = {}
        self._nothing_until = 0.0  # of trio's clock
        self._offering = Turns(_MOST_OFFERS, _MOST_OFFERS_EACH)
        self._fetching = Turns(_MOST_FETCHES, _MOST_FETCHES_EACH)
        # What was said of keys at the last look, when that was, and of whose use the user is told.
        self.rules: tuple[Rule, ...] = ()
        self.looked = -math.inf  # of trio's clock
        self.notify = "never"

    async def offered(self, pid: int, *, forwarded: bool) -> Offered:
        """All that are configured, whether their keys are there or not.

        `pid` is who asks.  Without what may not be fetched for a request that is `forwarded`, if
        this is one.
        """
        if trio.current_time() < self._nothing_until:
            return _NOTHING
        async with self._offering.of(pid):
            answer = await self._workers.send_out(Kind.OFFER, Offer(forwarded))
        if not isinstance(answer, Offered):
            return _NOTHING
        self.rules, self.notify = answer.rules, answer.notify
        self.looked = trio.current_time()
        if not (answer.shown or answer.sources or forwarded):
            self._nothing_until = trio.current_time() + _SECONDS_OF_NOTHING
        return answer

    def look_again(self) -> bool:
        """Whether the last look found nothing and was believed until now: something has come."""
        believed = trio.current_time() < self._nothing_until
        self._nothing_until = 0.0
        return believed

    def held(self, blob: bytes) -> Held | None:
        """The one with that public key, if its key has been fetched."""
        return self._held.get(blob)

    async def fetch(self, blob: bytes, pid: int) -> Held:
        """The one with that public key, for that process.  Takes as long as fetching its key.

        Raises Refusal.
        """
        while blob in self._under_way:
            await self._under_way[blob].wait()
        if blob not in self._held:
            arrival = self._under_way[blob] = trio.Event()
            try:
                async with self._fetching.of(pid):
                    self._held[blob] = await self._fetch(blob)
            finally:
                del self._under_way[blob]
                arrival.set()
        return self._held[blob]

    async def _fetch(self, blob: bytes) -> Held:
        answer = await self._workers.fetch(Fetch(blob))
        if isinstance(answer, Fetched):
            return Held(answer.identity, AsymmetricKey(answer.serial))
        raise refusal(answer, "the fetch worker died")

    def drop(self, held: Held) -> None:
        """Forget a key that can't be used any more, so that it is fetched again."""
        if self._held.get(held.identity.blob) is held:
            del self._held[held.identity.blob]
