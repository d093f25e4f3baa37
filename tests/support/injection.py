"""Code executed within another process, as if who attacks it had got that far.  As root.

In a few lines of our own: gdb also saves the vector registers, which that of Debian 12 can't on a
processor with AMX.  They need no saving: the process is stopped in a system call, and to the
function that made it they are free to use.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .programs import SECONDS

_CONT, _GETREGS, _SETREGS, _ATTACH, _DETACH = 7, 12, 13, 16, 17
# What a system call gives that was stopped while it waited: EINTR, ERESTARTSYS and its kin.
_INTERRUPTED = (-4, -512, -513, -514, -516)
_FUTEX = 202
_WALL = 0x40000000  # of waitpid: whatever kind of child or tracee it is
_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_RED_ZONE = 128  # below the stack pointer, and in use all the same

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    """struct user_regs_struct of <sys/user.h>, x86-64."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx"),
            *("rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
            *("fs_base", "gs_base", "ds", "es", "fs", "gs"),
        )
    ]


Call = tuple[str, *tuple[int | bytes, ...]]


def calls_in(pid: int, *calls: Call) -> list[int]:
    """What functions of the C library give when process `pid` calls them.

    Each is the function's name, then its arguments: integers, and bytes for a string.  A result of
    -1 is given as the kernel does it: -errno.
    """
    with _stopped(pid) as waiting:
        return [_call(pid, waiting, *call) for call in calls]


def python_in(pid: int, code: str) -> None:
    """Execute a statement in the Python of process `pid`, which must be waiting for something."""
    # It may end by what it executes.
    with suppress(ProcessLookupError), _stopped(pid) as waiting:
        # Waiting, it hasn't the interpreter's lock: that is the 1.
        _call(pid, waiting, "PyGILState_Ensure")
        assert _call(pid, waiting, "PyRun_SimpleString", code.encode()) == 0
        _call(pid, waiting, "PyGILState_Release", 1)


@contextmanager
def _stopped(pid: int) -> Iterator[_Registers]:
    """Stop a process that waits in a system call; its registers, which are given back to it.

    Not one that waits for a lock, or gives one: a front that was made to execute something while it
    gave up its interpreter's ended by SIGSEGV soon after, if it didn't hang.
    """
    deadline = time.monotonic() + SECONDS
    registers = _Registers()
    while True:
        assert time.monotonic() < deadline, f"{pid} doesn't wait for anything"
        _ptrace(_ATTACH, pid)
        assert _next_stop(pid) == signal.SIGSTOP
        _ptrace(_GETREGS, pid, ctypes.addressof(registers))
        if registers.rax in _INTERRUPTED and registers.orig_rax not in (-1, _FUTEX):
            break
        _ptrace(_DETACH, pid)
        time.sleep(0.01)
    try:
        yield registers
    finally:
        try:
            # With these the kernel makes the interrupted system call anew.
            _ptrace(_SETREGS, pid, ctypes.addressof(registers))
            _ptrace(_DETACH, pid)
        except ProcessLookupError:
            # It was killed, and its parent isn't told before we were.
            with suppress(ChildProcessError):
                os.waitpid(pid, _WALL)


def _call(pid: int, waiting: _Registers, name: str, *arguments: int | bytes) -> int:
    result = _raw_call(pid, waiting, name, *arguments)
    if name != "syscall":  # the others give an int, and the register's upper half is anything
        result = ctypes.c_int(result).value
    if result != -1:
        return result
    place = _raw_call(pid, waiting, "__errno_location")
    with _memory(pid) as memory:
        memory.seek(place)
        return -int.from_bytes(memory.read(4), "little")


def _raw_call(pid: int, waiting: _Registers, name: str, *arguments: int | bytes) -> int:
    top = (waiting.rsp - _RED_ZONE) & ~15
    strings = b""
    registers = _Registers.from_buffer_copy(waiting)
    for register, argument in zip(_ARGUMENTS, arguments, strict=False):
        if isinstance(argument, bytes):
            strings = argument + b"\0" + strings
            argument = top - len(strings)
        setattr(registers, register, argument)
    # A function is entered with its return address, here 0, eight bytes below a multiple of 16.
    registers.rsp = ((top - len(strings)) & ~15) - 8
    with _memory(pid) as memory:
        memory.seek(registers.rsp)
        memory.write(strings.rjust(top - registers.rsp, b"\0"))
    registers.rip = _address_in(pid, name)
    registers.rax = 0  # no vector registers among a variadic function's arguments
    registers.orig_rax = -1  # no system call for the kernel to make anew
    _ptrace(_SETREGS, pid, ctypes.addressof(registers))
    _ptrace(_CONT, pid)
    while (stop := _next_stop(pid)) != signal.SIGSEGV:
        _ptrace(_CONT, pid, stop)  # one that it was sent meanwhile, as when a child has ended
    _ptrace(_GETREGS, pid, ctypes.addressof(registers))
    # It has returned to address 0.
    assert registers.rip == 0, f"{name}: {stop!r} at {registers.rip:#x}"
    return int(registers.rax)


def _address_in(pid: int, name: str) -> int:
    """Where process `pid` has that function, which is in a file that this process uses too."""
    function = getattr(ctypes.pythonapi, name, None) or getattr(_libc, name)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address
    ours = _mappings(os.getpid())
    [file] = [file for start, end, file in ours if start <= address < end]
    return address + _start(_mappings(pid), file) - _start(ours, file)


def _start(mappings: list[tuple[int, int, str]], file: str) -> int:
    starts = [start for start, _, mapped in mappings if mapped == file]
    if not starts:
        raise ProcessLookupError(f"{file} is not, or no more, in its memory")
    return min(starts)


def _mappings(pid: int) -> list[tuple[int, int, str]]:
    """Start, end and file of each part of a process's memory."""
    lines = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    areas = [(line[0].partition("-"), line[5]) for line in lines if len(line) == 6]
    return [(int(start, 16), int(end, 16), file) for (start, _, end), file in areas]


def _memory(pid: int) -> BinaryIO:
    return open(f"/proc/{pid}/mem", "r+b", buffering=0)


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, 0, data) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request})")


def _next_stop(pid: int) -> int:
    """Wait until it stops; the signal that stopped it."""
    status = os.waitpid(pid, _WALL)[1]
    if not os.WIFSTOPPED(status):
        raise ProcessLookupError(f"{pid} has ended: {status:#x}")
    return os.WSTOPSIG(status)
