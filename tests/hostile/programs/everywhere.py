"""everywhere: at each turn, try all that can be tried with all keys that there are.

Its turns come when the agent's processes stand still between two of their system calls.  It looks
for what it can see, and is told the serials of all that the agent has made, as if it had guessed
them: a serial has 31 bits, and the kernel answers a million questions a second.  After each turn it
tells how often it has tried, and what it has got that it hadn't before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from kagent.keyctl import syscalls
from kagent.keyctl.errors import KernelKeyError, KeyNotFound
from tests.hostile.joining import join

from .tools import listed, loot

_PROCESS = syscalls.PROCESS_KEYRING
_ALL = 0x3F3F3F3F
_UID = os.getuid()


class Trying:
    """What was reached stays reachable: it is linked into this process's own keyring."""

    def __init__(self) -> None:
        self._own = {syscalls.get_keyring_id(_PROCESS, True)}
        self._key = syscalls.add_key("user", "own", b"own", _PROCESS)
        # What this login has anyway, kept over the joining of other sessions.
        with suppress(KernelKeyError):
            syscalls.link(syscalls.SESSION_KEYRING, _PROCESS)
        self._names: dict[int, str] = {}  # of what was seen, even if it isn't any more
        self._gone: set[int] = set()
        self._read: set[int] = set()
        self._got: set[tuple[str, int]] = set()
        self.tries = 0

    def turn(self, told: list[int]) -> list[str]:
        """Try everything once."""
        for line in listed():
            if line.uid == _UID:
                self._names[line.serial] = line.name
        for serial in told:
            self._names.setdefault(serial, "")
        there = [serial for serial in self._names if self._is_there(serial)]
        got = [
            f"{how} {serial} {self._names[serial]}"
            for serial in there
            for how in self._reach(serial)
        ]
        return got + loot((_PROCESS, *there), self._read)

    def forget_own(self) -> None:
        """Pass over what could be had from the beginning: it is this login's own."""
        self._own |= {serial for _, serial in self._got}

    def _is_there(self, serial: int) -> bool:
        if serial in self._own or serial in self._gone:
            return False
        try:
            syscalls.describe(serial)
        except KeyNotFound:
            self._gone.add(serial)
            return False
        except KernelKeyError:
            pass  # it may well be there
        return True

    def _reach(self, serial: int) -> list[str]:
        """Whatever makes more of a key possible than its owner meant, and destroys nothing."""
        attempts: dict[str, Callable[[], object]] = {
            "joined": lambda: self._join(serial),
            "linked": lambda: syscalls.link(serial, _PROCESS),
            "opened": lambda: syscalls.setperm(serial, _ALL),
            "chowned": lambda: syscalls.chown(serial, _UID, os.getgid()),
            "filled": lambda: syscalls.link(self._key, serial),
            "searched": lambda: self._search(serial),
            "queried": lambda: syscalls.pkey_query(serial, "enc=pkcs1 hash=sha256"),
        }
        reached = []
        for how, attempt in attempts.items():
            if (how, serial) in self._got:
                continue
            self.tries += 1
            with suppress(KernelKeyError, LookupError):
                attempt()
                self._got.add((how, serial))
                reached.append(how)
        return reached

    def _search(self, ring: int) -> None:
        try:
            syscalls.search(ring, "user", "whatever")
        except KeyNotFound:
            if not self._is_there(ring):
                raise

    def _join(self, serial: int) -> None:
        name = self._names[serial]
        if not name or name.startswith(("_uid.", "_uid_ses.")):
            raise LookupError
        # In the place of one that can't be joined, the kernel makes another of that name.
        joined = join(name)
        if joined != serial:
            self._own.add(joined)
            raise LookupError
        with suppress(KernelKeyError):
            syscalls.link(joined, _PROCESS)


def main() -> None:
    trying = Trying()
    trying.turn([int(word) for word in sys.argv[1:]])
    trying.forget_own()
    print("ready", flush=True)
    for line in sys.stdin:
        got = trying.turn([int(word) for word in line.split()])
        print(trying.tries, *got, sep="\t", flush=True)


if __name__ == "__main__":
    main()
