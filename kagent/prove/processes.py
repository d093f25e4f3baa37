"""An agent's processes: found by what the kernel tells, held still while they are read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..confine._libc import ffi

_libc = ffi.dlopen(None)

# linux/ptrace.h
_PTRACE_DETACH = 17
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_WALL = 0x40000000  # wait.h: a thread, too

_SECONDS = 5.0  # until a thread stops; who waits for a disk that doesn't answer may never do so
_POLL = 0.001

# Fields of proc_pid_stat(5) behind the command's name, which is in parentheses.
_STATE, _PARENT, _STARTED = 0, 1, 19
_LISTENING = 0x00010000  # net/unix: __SO_ACCEPTCON


class Process(NamedTuple):
    """`started`, in clock ticks since boot, tells it from another that gets its number."""

    pid: int
    started: int
    parent: int
    name: str

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """None if it has ended."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        if fields[_STATE] in "ZX":
            return None
        return cls(pid, int(fields[_STARTED]), int(fields[_PARENT]), name)

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        now = Process.read(self.pid)
        return now is not None and now.started == self.started


def below(*pids: int) -> list[Process]:
    """These processes and all that they have started, and so on; but not this one and its own."""
    others = [one for pid in _pids() if pid != os.getpid() and (one := Process.read(pid))]
    wanted = set(pids)
    while more := {one.pid for one in others if one.parent in wanted} - wanted:
        wanted |= more
    return [one for one in others if one.pid in wanted]


def holding(path: str) -> list[Process]:
    """Who could accept a connection at that socket: who has it open, listening.  unix(7)."""
    names = {path, os.path.realpath(path)}
    marks = {f"socket:[{inode}]" for inode, name in _listening() if name in names}
    return [
        process
        for pid in _pids()
        if marks.intersection(_open_in(pid)) and (process := Process.read(pid))
    ]


def of_agent(path: str) -> list[Process]:
    """All processes of the agent at `path`: who could accept a connection there, and all below.

    And a program of the same command line that they were forked by, which only waits for them.
    systemd may hold a service's socket; then it is among them, but not all else that it started.
    """
    found = holding(path)
    lenders = {one for one in found if one.pid == 1 or one.name == "systemd"}
    agents = {one.pid for one in found if one not in lenders}
    waiting = {one.parent for one in found if _command(one.parent) == _command(one.pid) != b""}
    return [*lenders, *below(*agents | waiting)] if agents else []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Still:
    """Processes that don't run while the block does.  If this one is killed, they go on.

    No key can get from memory that isn't read yet to memory that has been.  ptrace(2): seized and
    interrupted, which no signal and no parent tells of.
    """

    def __init__(self) -> None:
        self._threads: dict[int, int] = {}  # and the signal that one was about to get, or 0

    def __enter__(self) -> Still:
        return self

    def __exit__(self, *_: object) -> None:
        for thread, number in self._threads.items():
            _libc.ptrace(_PTRACE_DETACH, thread, 0, number)

    def hold(self, pid: int) -> None:
        """Stop all threads of that process.  Raises OSError."""
        # Until none is new: one that runs yet can start another.
        while new := [one for one in _threads_of(pid) if one not in self._threads]:
            for thread in new:
                self._stop(thread)

    def _stop(self, thread: int) -> None:
        _ptrace(_PTRACE_SEIZE, thread)
        self._threads[thread] = 0
        _ptrace(_PTRACE_INTERRUPT, thread)
        deadline = time.monotonic() + _SECONDS
        while True:
            stopped, status = os.waitpid(thread, _WALL | os.WNOHANG)
            if stopped:
                break
            if time.monotonic() > deadline:
                raise TimeoutError("it doesn't stop")
            time.sleep(_POLL)
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError
        if not status >> 16:  # no event of ptrace's, so a signal on its way
            self._threads[thread] = os.WSTOPSIG(status)


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, 0, 0) != 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))


def _threads_of(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _open_in(pid: int) -> Iterator[str]:
    try:
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            yield os.readlink(descriptor.path)
    except OSError:
        return  # it has ended, or closed this one


def _listening() -> Iterator[tuple[str, str]]:
    """Inode and path of listening Unix sockets."""
    for line in os.fsdecode(Path("/proc/net/unix").read_bytes()).splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _LISTENING:
            yield fields[6], fields[7]
