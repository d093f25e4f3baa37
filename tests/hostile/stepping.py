"""An agent's processes stopped at each of their key system calls, before and after.

Between two of them nothing happens to keys: so who has a turn at each stop has tried at every
moment there is, however short.  As root, by ptrace(2).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kagent.keyctl import syscalls
from kagent.keyctl.syscalls import Operation
from tests.support.programs import SECONDS

_KEY_CALLS = {syscalls._ADD_KEY, syscalls._REQUEST_KEY, syscalls._KEYCTL}

_GIVING_SERIALS = {
    Operation.GET_KEYRING_ID,
    Operation.JOIN_SESSION_KEYRING,
    Operation.SEARCH,
    Operation.GET_PERSISTENT,
}

# linux/ptrace.h, sys/ptrace.h
_GETREGS, _SYSCALL, _SEIZE, _INTERRUPT, _LISTEN = 12, 24, 0x4206, 0x4207, 0x4208
_SYSGOOD, _FORK, _VFORK, _CLONE = 1, 2, 4, 8
_EVENT_STOP = 128
_WALL = 0x40000000
# struct user_regs_struct of x86-64, in words
_REGISTERS, _DI, _AX, _ORIGINAL_AX = 27, 14, 10, 15

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long

_QUIET = 0.05  # seconds


class Stop(NamedTuple):
    """A process of the agent before or after a key system call, and what serial that gave, or 0."""

    pid: int
    serial: int


class Stepper:
    """The processes of a running agent, once `stepping` has them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def until(self, done: Callable[[], object], at: Callable[[Stop], bool]) -> int:
        """Call `at` at each stop until `done` and the agent rests, or ends; how many there were.

        The process at which `at` gives True is killed there.
        """
        stops = 0
        out, into = self._process.stdout, self._process.stdin
        assert out is not None
        assert into is not None
        while True:
            if select.select([out], [], [], _QUIET)[0]:
                line = out.readline()
                if not line:
                    return stops
                stops += 1
                verdict = at(Stop(*map(int, line.split())))
                into.write("kill\n" if verdict else "go\n")
                into.flush()
            elif done():
                return stops


@contextmanager
def stepping(keeper: int) -> Iterator[Stepper]:
    """Hold that process and all its children, now and later, until the block ends."""
    with tracing(__name__, keeper) as process:
        yield Stepper(process)


@contextmanager
def tracing(module: str, *roots: int) -> Iterator[subprocess.Popen[str]]:
    """A process that runs that module, which holds these processes until the block ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", module, *map(str, roots)],
        stdin=pipe,
        stdout=pipe,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            # Its end lets all go on.
            process.kill()
            process.wait(SECONDS)


def _request(number: int, pid: int, data: int = 0) -> None:
    if _ptrace(number, pid, None, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace({number:#x})")


def _seize(pid: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            _request(_SEIZE, int(task.name), _SYSGOOD | _FORK | _VFORK | _CLONE)
            _request(_INTERRUPT, int(task.name))
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        _seize(int(child))


def _registers(pid: int) -> list[int]:
    words = (ctypes.c_long * _REGISTERS)()
    if _ptrace(_GETREGS, pid, None, ctypes.addressof(words)) == -1:
        raise OSError(ctypes.get_errno(), "ptrace(GETREGS)")
    return list(words)


def _at_call(pid: int) -> bool:
    """Report it if it is a key call; whether the process is to be killed."""
    registers = _registers(pid)
    call = registers[_ORIGINAL_AX]
    if call not in _KEY_CALLS:
        return False
    gives_serial = call != syscalls._KEYCTL or registers[_DI] in _GIVING_SERIALS
    # Before it has a result there is an error in its place.
    print(pid, max(registers[_AX], 0) if gives_serial else 0, flush=True)
    return sys.stdin.readline() == "kill\n"


def main() -> None:
    """The process that steps."""
    _seize(int(sys.argv[1]))
    print("ready", flush=True)
    while True:
        try:
            pid, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            return  # all have ended
        if not os.WIFSTOPPED(status):
            continue
        number, event = os.WSTOPSIG(status), status >> 16
        with suppress(OSError):
            if number == signal.SIGTRAP | 0x80:
                if _at_call(pid):
                    os.kill(pid, signal.SIGKILL)
                else:
                    _request(_SYSCALL, pid)
            elif event == _EVENT_STOP and number != signal.SIGTRAP:
                _request(_LISTEN, pid)  # stopped by a signal
            else:
                _request(_SYSCALL, pid, 0 if event else number)


if __name__ == "__main__":
    main()
