"""How many keys a user may have, and how many bytes in them.  keyrings(7), /proc/key-users."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from .errors import QuotaExceeded

_Result = TypeVar("_Result")

_PATIENCE = 1.0  # seconds
_MOMENT = 0.02


class Quota(NamedTuple):
    """What counts of a user's keys.  Those that are gone count until they are collected."""

    keys: int
    most_keys: int
    size: int  # bytes, of descriptions and payloads
    most_size: int

    @classmethod
    def of(cls, uid: int) -> Quota | None:
        """None for a user who has no keys, or where it can't be read."""
        try:
            with open("/proc/key-users", encoding="ascii") as file:
                users = file.read()
        except OSError:
            return None
        line = rf"^\s*{uid}:\s+\d+ \d+/\d+ (\d+)/(\d+) (\d+)/(\d+)$"
        found = re.search(line, users, re.MULTILINE)
        return cls(*map(int, found.groups())) if found else None

    @property
    def used(self) -> float:
        """Which part of it, from 0 to 1 and a little more."""
        return max(self.keys / self.most_keys, self.size / self.most_size)

    def room(self, keys: int, size: int, *, up_to: float) -> int:
        """How many things of `keys` keys and `size` bytes fit into that part of it."""
        keys_left = int(self.most_keys * up_to) - self.keys
        size_left = int(self.most_size * up_to) - self.size
        return max(0, min(keys_left // keys, size_left // size))


def with_patience(attempt: Callable[[], _Result]) -> _Result:
    """The result of `attempt`, tried for a second while the quota is used up.

    Raises what it raises.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return attempt()
        except QuotaExceeded:
            if time.monotonic() > end:
                raise
        time.sleep(_MOMENT)
