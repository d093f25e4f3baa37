"""Reading all memory of a process.  For root; proc_pid_mem(5), proc_pid_maps(5)."""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .needles import Needles, Trace

_CHUNK = 1 << 16  # bytes
_ZEROS = bytes(_CHUNK)
_PAGE = os.sysconf("SC_PAGE_SIZE")
_AREA = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)")
# The kernel's own pages, which no process can write to: clocks, and entries for system calls.
_KERNELS = re.compile(r"\[(vvar\w*|vsyscall)\]")


class Seen(NamedTuple):
    """How many bytes of a process were read, what was found, and how many could not be read."""

    size: int
    found: frozenset[Trace]
    unread: int


class Search:
    """Looks for keys in one process after another.

    What several have in common, as forks of one and programs with the same libraries have, is
    searched once.
    """

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._clean: set[bytes] = set()  # digests of what has nothing of the keys

    def look(self, pid: int) -> Seen:
        """Read all that `pid` has mapped, whether it may read that itself or not.

        Raises OSError: it has ended, or may not be read.
        """
        size = unread = 0
        found: set[Trace] = set()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for start, end in _areas(pid):
                for chunk in _chunks(memory.fileno(), start, end):
                    size += len(chunk)
                    unread += _PAGE if not chunk else 0
                    found |= self._within(chunk)
        return Seen(size, frozenset(found), unread)

    def _within(self, chunk: bytes) -> set[Trace]:
        if chunk == _ZEROS[: len(chunk)]:
            return set()
        digest = hashlib.sha256(chunk).digest()
        if digest in self._clean:
            return set()
        found = self._needles.among(array("Q", chunk))
        if not found:
            self._clean.add(digest)
        return found


def _areas(pid: int) -> Iterator[tuple[int, int]]:
    lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    if not lines:
        raise ProcessLookupError
    for line in lines:
        if (area := _AREA.fullmatch(line)) and not _KERNELS.fullmatch(area[3]):
            yield int(area[1], 16), int(area[2], 16)


def _chunks(memory: int, start: int, end: int) -> Iterator[bytes]:
    """What is between the addresses; nothing, b"", for each page that can't be read."""
    while start < end:
        try:
            # Ends before a page that can't be read.
            chunk = os.pread(memory, min(_CHUNK, end - start), start)
        except OSError:
            chunk = b""
        yield chunk
        start += len(chunk) or _PAGE
