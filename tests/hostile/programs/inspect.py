"""inspect KEEPER [NAME]: look into the agent's processes, in every way that the same user may try.

Each process, or each of that name, as soon as it is there, and again as long as it is.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from .tools import argument, children, goes_on, ready, tell

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ptrace.restype = ctypes.c_long

# asm/unistd_64.h, asm-generic/unistd.h
_PROCESS_VM_READV, _KCMP, _PERF_EVENT_OPEN, _PIDFD_OPEN, _PIDFD_GETFD = 310, 312, 298, 434, 438
_GET_ROBUST_LIST, _MOVE_PAGES = 274, 279
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
_READABLE = ("mem", "maps", "smaps", "environ", "auxv", "syscall", "stack", "pagemap", "io")
_LINKS = ("exe", "cwd", "root", "fd/0", "fd/3", "ns/user")
_FOLDERS = ("fd", "fdinfo", "map_files")


def _call(*arguments: int) -> int:
    result: int = _libc.syscall(*(ctypes.c_long(one) for one in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def _seize(pid: int) -> None:
    if _libc.ptrace(_SEIZE, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "")
    # One that runs can't be let go, and would stop for us at its next signal.
    _libc.ptrace(_INTERRUPT, pid, None, None)
    os.waitpid(pid, _WALL)
    _libc.ptrace(_DETACH, pid, None, None)


def _read_memory(pid: int) -> None:
    # From an address that no process has: who may is told EFAULT.
    with suppress(OSError):
        _call(_PROCESS_VM_READV, pid, 0, 0, 0, 0, 0)
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(id(None), 8)
    try:
        _call(_PROCESS_VM_READV, pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)
    except OSError as error:
        if error.errno != 14:
            raise


def _take_descriptor(pid: int) -> None:
    handle = _call(_PIDFD_OPEN, pid, 0)
    try:
        for descriptor in range(3, 12):
            with suppress(FileNotFoundError):
                os.close(_call(_PIDFD_GETFD, handle, descriptor, 0))
                return
    except OSError as error:
        if error.errno == 9:
            return
        raise
    finally:
        os.close(handle)


def _attempts(pid: int) -> dict[str, Callable[[], object]]:
    place = Path(f"/proc/{pid}")
    found: dict[str, Callable[[], object]] = {
        "attached": lambda: _seize(pid),
        "process_vm_readv": lambda: _read_memory(pid),
        "pidfd_getfd": lambda: _take_descriptor(pid),
        "kcmp": lambda: _call(_KCMP, pid, os.getpid(), 1, 0, 0),
        "move_pages": lambda: _call(_MOVE_PAGES, pid, 0, 0, 0, 0, 0),
        "get_robust_list": lambda: _robust_list(pid),
        "writable mem": lambda: os.close(os.open(place / "mem", os.O_RDWR)),
        "clear_refs": lambda: os.close(os.open(place / "clear_refs", os.O_WRONLY)),
    }
    found |= {name: partial(_open, place / name) for name in _READABLE}
    found |= {name: partial(os.readlink, place / name) for name in _LINKS}
    found |= {f"{name}/": partial(os.listdir, place / name) for name in _FOLDERS}
    return found


def _open(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Of a process that ends, everything can be opened, and nothing be read.
        if path.name == "mem" and (path.parent / "statm").read_text().startswith("0 "):
            raise ProcessLookupError
        if path.name != "mem" and not os.read(descriptor, 1):
            raise ProcessLookupError
    finally:
        os.close(descriptor)


def _robust_list(pid: int) -> None:
    head, length = ctypes.c_void_p(), ctypes.c_size_t()
    _call(_GET_ROBUST_LIST, pid, ctypes.addressof(head), ctypes.addressof(length))


def _family(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in _family(child))]


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def main() -> None:
    keeper, tries, got = argument(1), 0, set()
    name_wanted = sys.argv[2] if sys.argv[2:] else ""
    seen: set[int] = set()
    ready()
    while goes_on():
        for pid in _family(keeper):
            if name_wanted and _name(pid) != name_wanted:
                continue
            for name, attempt in _attempts(pid).items():
                if pid in seen and name != "mem":
                    continue
                tries += 1
                with suppress(OSError):
                    attempt()
                    # It may have ended, or become a program of the user's own.
                    name_now = _name(pid)
                    if name_now and (not name_wanted or name_now == name_wanted):
                        got.add(f"{name} of {name_now}")
            seen.add(pid)
    tell(tries, [f"{len(seen)} processes", *sorted(got)])


if __name__ == "__main__":
    main()
