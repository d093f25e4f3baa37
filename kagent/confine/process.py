"""Core dumps, debuggers and new privileges given up.  prctl(2).

Imported before anything else by every command, so it imports next to nothing.
"""

from __future__ import annotations

import os
import resource

from ._libc import ffi

_libc = ffi.dlopen(None)

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38

_SIGKILL = 9  # without the module signal, which takes long to import


def prctl(option: int, value: int, more: int = 0) -> None:
    """prctl(2).  Raises OSError."""
    if _libc.prctl(option, value, more, 0, 0) != 0:
        raise OSError(ffi.errno, f"prctl({option}): {os.strerror(ffi.errno)}")


def forbid_inspection() -> None:
    """No ptrace and no /proc/PID/mem by the same user, and so no core dump; forks inherit it.

    An exec by an ordinary user undoes it, so each program calls this first.
    """
    prctl(_PR_SET_DUMPABLE, 0)


def forbid_core_dumps() -> None:
    """Also where an administrator has them written whatever the process says; for all below."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def tracer() -> int:
    """The pid of a process that is attached to this one, since before it could be forbidden; or 0.

    proc_pid_status(5).
    """
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"TracerPid:"):
                return int(line.split()[1])
    return 0


def forbid_new_privileges() -> None:
    """No set-uid program started from here gets its privileges, for good."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal: int = _SIGKILL) -> None:
    """Get that signal from the kernel when the parent ends, however it ends.

    A parent that has ended before isn't noticed: look at getppid(2) afterwards.
    """
    prctl(_PR_SET_PDEATHSIG, signal)


def set_name(name: str) -> None:
    """The name that ps -o comm shows, at most 15 bytes."""
    text = ffi.new("char[]", name.encode())
    prctl(_PR_SET_NAME, int(ffi.cast("uintptr_t", text)))
