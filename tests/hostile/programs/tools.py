"""What the attackers' programs share.

A program says "ready" when it is at work, and goes on until its input ends.  Then it tells in a
line of JSON how often it tried, and what it got.
"""

from __future__ import annotations

import base64
import json
import select
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kagent.keyctl import syscalls
from kagent.keyctl.errors import KernelKeyError

_LONGEST = 90.0  # seconds; for when nobody ends it
_deadline = time.monotonic() + _LONGEST
_poll = select.poll()
_poll.register(0, select.POLLIN | select.POLLHUP)


def ready() -> None:
    """Say that the attack has begun."""
    print("ready", flush=True)


def goes_on() -> bool:
    """Whether nobody has said to end."""
    return not _poll.poll(0) and time.monotonic() < _deadline


def tell(tries: int, got: list[str]) -> None:
    """Say what came of it."""
    print(json.dumps({"tries": tries, "got": got}), flush=True)


class Line(NamedTuple):
    """A line of /proc/keys, as far as it is of use."""

    serial: int
    uid: int
    type: str
    name: str


def listed() -> Iterator[Line]:
    """The keys that this process may see."""
    for line in Path("/proc/keys").read_text(errors="replace").splitlines():
        words = line.split(maxsplit=8)
        if len(words) == 9 and words[5].isdigit():
            yield Line(int(words[0], 16), int(words[5]), words[7], words[8].rpartition(": ")[0])


def loot(serials: Iterable[int], told: set[int]) -> list[str]:
    """What can be read of keys and below keyrings, and isn't `told` yet: type, name, payload."""
    found: list[str] = []
    waiting, seen = list(serials), set()
    while waiting:
        serial = waiting.pop()
        if serial in seen:
            continue
        seen.add(serial)
        with suppress(KernelKeyError):
            kind, _, _, _, name = syscalls.describe(serial).split(";", 4)
            payload = syscalls.read(serial)
            if kind == "keyring":
                waiting += memoryview(payload).cast("i")
            elif serial not in told:
                told.add(serial)
                found.append(f"read {kind} {name} {base64.b64encode(payload).decode()}")
    return found


def children(pid: int) -> list[int]:
    """The children of a process, the oldest first."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def argument(number: int) -> int:
    """A number from the command line."""
    return int(sys.argv[number])
