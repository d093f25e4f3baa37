"""What /proc/keys tells: proc_keys(5).  Time left and state are told nowhere else.

All else is for KEYCTL_DESCRIBE to tell: any user's key can have a description with a line's end in
it, and behind that what looks like a line.  So a line counts only if the kernel could have written
it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .keys import Key

_LINE = re.compile(
    r"(?P<serial>[0-7][0-9a-f]{7}) (?P<flags>[-A-Za-z]+) +[0-9]+ +"
    r"(?P<left>perm|expd|[0-9]{1,10}[smhdw]) [0-9a-f]{8} +[0-9]+ +-?[0-9]+ "
    r"(?P<type>\S+) +(?P<told>.*)"
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Listed(NamedTuple):
    """A line.

    `left` is perm, expd, or a number with s, m, h, d or w, rounded down; `told` is what a key of
    that type tells of itself, which begins with its description.
    """

    key: Key
    flags: str
    left: str
    type: str
    told: str

    @property
    def seconds_left(self) -> int | None:
        """`left` in seconds, 0 if its time is over; None if it has no end."""
        if self.left == "perm":
            return None
        return 0 if self.left == "expd" else int(self.left[:-1]) * _UNITS[self.left[-1]]

    @property
    def under_construction(self) -> bool:
        """Whether request-key(8) is still at work on it."""
        return "U" in self.flags

    @property
    def negative(self) -> bool:
        """Whether request-key(8) has answered that there is no such key."""
        return "N" in self.flags


def listed() -> Iterator[Listed]:
    """All keys of the machine that this process may see."""
    with open("/proc/keys", encoding="utf-8", errors="replace") as file:
        return parse(file.read())


def parse(content: str) -> Iterator[Listed]:
    """The keys that the file's content tells of."""
    for line in content.split("\n"):
        if told := _LINE.match(line):
            yield Listed(
                Key(int(told["serial"], 16)),
                told["flags"],
                told["left"],
                # The kernel cuts a type's name off after nine characters.
                told["type"],
                told["told"],
            )
