"""Taking turns: what costs the agent something is done for a few at once, and for a few of each
process, so that one that wants much is in nobody's way.

A process is what SO_PEERCRED tells; all that comes from another host comes from one, the ssh that
forwards the agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


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


class Row(Generic[T]):
    """What waits: of each process in order, and of the processes one after the other.

    So who asks for a hundred things waits for them, and who asks for one beside that doesn't.
    """

    def __init__(self) -> None:
        self._of_each: dict[int, deque[T]] = {}  # none is empty; whose turn is next is first

    def __bool__(self) -> bool:
        return bool(self._of_each)

    def add(self, pid: int, one: T) -> None:
        """Have it wait, for that process."""
        self._of_each.setdefault(pid, deque()).append(one)

    def first(self) -> T:
        """What is next, if there is anything."""
        return next(iter(self._of_each.values()))[0]

    def take(self) -> T:
        """What is next, which waits no longer."""
        pid = next(iter(self._of_each))
        waiting = self._of_each.pop(pid)
        one = waiting.popleft()
        if waiting:
            self._of_each[pid] = waiting
        return one

    def remove(self, pid: int, one: T) -> None:
        """It waits no longer."""
        self._of_each[pid].remove(one)
        if not self._of_each[pid]:
            del self._of_each[pid]
