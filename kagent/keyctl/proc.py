"""What /proc/keys tells: proc_keys(5).  Time left and state are told nowhere else.

All else is for KEYCTL_DESCRIBE to tell: any user's key can have a description with a line's end in
it, and behind that what looks like a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .keys import Key

_LINE = re.compile(
    r"(?P<serial>[0-9a-f]+) (?P<flags>\S+) +\d+ +(?P<left>\S+) [0-9a-f]+ +\d+ +-?\d+ "
    r"(?P<type>\S+) +(?P<told>.*)"
)


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
        lines = file.read().splitlines()
    for line in lines:
        if told := _LINE.match(line):
            yield Listed(
                Key(int(told["serial"], 16)),
                told["flags"],
                told["left"],
                # The kernel cuts a type's name off after nine characters.
                told["type"],
                told["told"],
            )
