"""Memory that is kept out of swap, as far as RLIMIT_MEMLOCK goes; and code that is given back.

An ordinary user may lock 8 MiB, less than a Python process has, and no fork inherits what is
locked.  So this locks first what secrets are most likely to lie in, and only what is written to.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ._libc import ffi

_libc = ffi.dlopen(None)

_MADV_DONTNEED = 4
_MLOCK_ONFAULT = 1  # lock what is touched, instead of touching everything first
_MCL_FUTURE = 2
_MCL_ONFAULT = 4

# Bytes left for what is allocated later, and for the stack to grow.  That is locked as it comes,
# and without room in the limit it would fail.
_ROOM = 2 << 20


class Area(NamedTuple):
    """Addresses, in bytes."""

    start: int
    length: int


def memory_areas(*, python_objects: bool = True) -> Sequence[Area]:
    """Where this process and its forks keep what they work on, the likeliest first.

    That is the stack, the heap (of C code, and of Python objects of more than 512 bytes), and
    with `python_objects` where Python has its small ones, which is most of all.  Reading it takes
    300 µs, so a process that forks often does it once.  proc_pid_maps(5).
    """
    found: dict[str, list[Area]] = {"[stack]": [], "[heap]": [], "": []}
    for area, access, name in _mappings():
        if name in found and access == "rw-p":
            found[name].append(area)
    # The newest mappings have the lowest addresses, and the most that is still free.
    return found["[stack]"] + found["[heap]"] + (found[""] if python_objects else [])


def _mappings() -> Iterator[tuple[Area, str, str]]:
    """Each with what is allowed there, and the file's name or the kernel's for it."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    yield from map(_mapping, lines)


def _mapping(line: str) -> tuple[Area, str, str]:
    addresses, access, _, _, _, *name = line.split(maxsplit=5)
    start, end = (int(address, 16) for address in addresses.split("-"))
    return Area(start, end - start), access, "".join(name).rstrip()


def code_areas() -> Sequence[Area]:
    """What this process has of its program and libraries that is as in the files.

    Code and constants, to which nothing may write, and nothing has written.  proc_pid_smaps(5);
    takes two milliseconds.
    """
    found = []
    with open("/proc/self/smaps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            word, *values = line.split()
            if not word.endswith(":"):
                area, access, name = _mapping(line)
                is_as_in_file = "w" not in access and name.startswith("/")
            # What has been written to, as the linker does before it forbids that, would be lost.
            elif word == "Anonymous:" and values[0] == "0" and is_as_in_file:
                found.append(area)
    return found


def give_back(code: Sequence[Area]) -> None:
    """Let go of the memory of `code`; what is run again comes back from the files.

    For a process that has run much of it, and will not do so soon.
    """
    for area in code:
        _libc.madvise(*area, _MADV_DONTNEED)


def lock_memory(areas: Sequence[Area] | None = None) -> bool:
    """Keep `areas`, and what is allocated from now on, out of swap.

    By default all that `memory_areas` finds.  False if the limit is too small for all of it.
    Takes 0.2 µs for each page in use: 0.2 ms without Python's small objects, 0.6 ms with them.
    """
    limit = _raise_limit()
    left = float("inf") if limit == resource.RLIM_INFINITY else limit - _ROOM
    if left < 0:
        return False
    complete = True
    for area in memory_areas() if areas is None else areas:
        if area.length <= left and _libc.mlock2(*area, _MLOCK_ONFAULT) == 0:
            left -= area.length
        else:
            complete = False
    return bool(_libc.mlockall(_MCL_FUTURE | _MCL_ONFAULT) == 0) and complete


def unlock_memory() -> None:
    """Undo it, where nothing is secret any more: what is allocated later would have little room."""
    _libc.munlockall()


def memory_limit_lowered() -> bool:
    """Whether less may be locked than when this process's program was started."""
    now = _most()
    return now != resource.RLIM_INFINITY and (
        _most_at_start == resource.RLIM_INFINITY or now < _most_at_start
    )


def _most() -> int:
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]


_most_at_start = _most()


def _raise_limit() -> int:
    """Raise RLIMIT_MEMLOCK as far as this user may; what it is, in bytes or RLIM_INFINITY."""
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    except ValueError:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
        return most
    return resource.RLIM_INFINITY
