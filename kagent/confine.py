"""What a process of kagent gives up: core dumps, debuggers, swap, new privileges.  prctl(2)."""

from __future__ import annotations

import os
import resource
import signal

from .keyctl._libc import ffi

_libc = ffi.dlopen(None)

# asm/unistd.h; (prctl, mlockall)
_NUMBERS = {
    "x86_64": (157, 151),
    "aarch64": (167, 230),
    "riscv64": (167, 230),
    "loongarch64": (167, 230),
    "ppc64le": (171, 152),
    "s390x": (172, 152),
}
_PRCTL, _MLOCKALL = _NUMBERS[os.uname().machine]

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4  # lock what is touched, instead of touching everything first


def _prctl(option: int, value: int) -> None:
    if _libc.syscall(_PRCTL, option, value, 0, 0, 0) != 0:
        raise OSError(ffi.errno, f"prctl({option}): {os.strerror(ffi.errno)}")


def forbid_inspection() -> None:
    """No core dump, no ptrace and no /proc/PID/mem by the same user; children inherit it.

    An exec by an ordinary user undoes the second half, so each program calls this first.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """No set-uid program started from here gets its privileges, for good."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent() -> None:
    """Be killed by the kernel when the parent ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def lock_memory() -> bool:
    """Keep this process's memory out of swap; False if RLIMIT_MEMLOCK is too small for it."""
    return bool(
        _libc.syscall(_MLOCKALL, _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT, 0, 0, 0, 0) == 0
    )


def set_name(name: str) -> None:
    """The name that ps -o comm shows, at most 15 bytes."""
    text = ffi.new("char[]", name.encode())
    _prctl(_PR_SET_NAME, int(ffi.cast("uintptr_t", text)))
