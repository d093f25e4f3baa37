"""hoard WHAT: use up this user's quota of keys or bytes, but for a few.

Each line of input says how many are to be left, in hundreds for bytes; 0 means that all are.
WHAT may be "single", for bytes one by one.
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from kagent.keyctl import syscalls
from kagent.keyctl.errors import KernelKeyError


def _left() -> tuple[int, int]:
    """Keys and bytes."""
    numbers = re.search(
        rf"^\s*{_uid()}:\s+\d+ \S+ (\d+)/(\d+) (\d+)/(\d+)",
        Path("/proc/key-users").read_text(),
        re.MULTILINE,
    )
    assert numbers
    keys, most_keys, size, most = map(int, numbers.groups())
    return most_keys - keys, most - size


def _uid() -> int:
    return Path("/proc/self").stat().st_uid


def _wait_until_given_back() -> None:
    """The kernel collects keys in its own time."""
    last = None
    while last != (now := _left()):
        last = now
        time.sleep(0.03)


def _fill(ring: int, keep: int) -> None:
    for number in range(400):
        if _left()[0] <= keep:
            return
        with suppress(KernelKeyError):
            syscalls.add_key("user", f"h{number}", b"x", ring)


def _fill_bytes(ring: int, keep: int) -> None:
    for number in range(400):
        spare = _left()[1] - keep
        if spare < 30:
            return
        with suppress(KernelKeyError):
            syscalls.add_key("user", f"h{number}", bytes(min(spare - 20, 4000)), ring)


def _fill_to_the_byte(ring: int, keep: int) -> None:
    last = syscalls.add_key("user", "last", b"x", ring)
    _fill_bytes(ring, keep)
    syscalls.update(last, bytes(1 + _left()[1] - keep))


def main() -> None:
    fills = {"keys": _fill, "bytes": _fill_bytes, "single": _fill_to_the_byte}
    fill, unit = fills[sys.argv[1]], {"bytes": 100}.get(sys.argv[1], 1)
    ring = syscalls.add_key("keyring", "hoard", None, syscalls.PROCESS_KEYRING)
    print("ready", flush=True)
    for line in sys.stdin:
        syscalls.clear(ring)
        _wait_until_given_back()
        if keep := int(line):
            fill(ring, keep * unit)
        print("done", flush=True)


if __name__ == "__main__":
    main()
