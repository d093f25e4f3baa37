"""Taking turns: what costs the agent something is done for a few at once, and for a few of each
process, so that one that wants much is in nobody's way.

A process is what SO_PEERCRED tells; all that comes from another host comes from one, the ssh that
forwards the agent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Turns:
    """`most` at once, of which `most_each` of one process.  Who waits is served in order."""

    def __init__(self, most: int, most_each: int) -> None:
        self._all = trio.CapacityLimiter(most)
        self._most_each = most_each
        self._of_each: dict[int, trio.CapacityLimiter] = {}  # who has a turn, or waits for one
        self._waiting: dict[int, int] = {}  # how many there are of each

    @asynccontextmanager
    async def of(self, pid: int) -> AsyncIterator[None]:
        """A turn of that process, as long as the block runs."""
        own = self._of_each.setdefault(pid, trio.CapacityLimiter(self._most_each))
        self._waiting[pid] = self._waiting.get(pid, 0) + 1
        try:
            async with own, self._all:
                yield
        finally:
            self._waiting[pid] -= 1
            if not self._waiting[pid]:
                del self._waiting[pid], self._of_each[pid]
