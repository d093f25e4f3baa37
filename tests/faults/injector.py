"""System calls of an agent's processes made to fail, or a process killed before one.

By ptrace(2), in a process of its own, as root; x86-64.  A call that fails isn't made: the kernel is
asked for none, and the error is put where its result would be.  Two errors are the kernel's own,
since their consequences are more than an error: a call that would open a descriptor is made by a
process that may have no more, so that what comes with a message is cut off too; and a heap doesn't
grow.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from kagent.keyctl.syscalls import Operation
from tests.hostile.stepping import tracing
from tests.support.programs import SECONDS

# asm/unistd_64.h: those that a table below names.
_NUMBERS = {
    "read": 0, "write": 1, "stat": 4, "lstat": 6, "poll": 7, "mmap": 9, "mprotect": 10,
    "brk": 12, "pread64": 17, "pwrite64": 18, "readv": 19, "mremap": 25, "dup": 32,
    "nanosleep": 35, "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "recvfrom": 45,
    "sendmsg": 46, "recvmsg": 47, "bind": 49, "socketpair": 53, "clone": 56, "fork": 57,
    "vfork": 58, "execve": 59, "wait4": 61, "fcntl": 72, "flock": 73, "fsync": 74,
    "ftruncate": 77, "getdents": 78, "rename": 82, "mkdir": 83, "readlink": 89, "mlock": 149,
    "mlockall": 151, "prctl": 157, "futex": 202, "getdents64": 217, "clock_nanosleep": 230,
    "epoll_wait": 232, "epoll_ctl": 233, "add_key": 248, "request_key": 249, "keyctl": 250,
    "openat": 257, "newfstatat": 262, "renameat": 264, "readlinkat": 267, "ppoll": 271,
    "epoll_pwait": 281, "signalfd4": 289, "fallocate": 285, "accept4": 288, "eventfd2": 290,
    "epoll_create1": 291, "dup3": 292, "pipe2": 293, "seccomp": 317, "memfd_create": 319,
    "mlock2": 325, "statx": 332, "pidfd_open": 434, "clone3": 435,
}  # fmt: skip
NAMES = {number: name for name, number in _NUMBERS.items()}

_FORKS = ("clone", "fork", "vfork", "clone3")
_OPENS = (
    *("dup", "socket", "accept", "accept4", "socketpair", "openat", "eventfd2", "epoll_create1"),
    *("pipe2", "memfd_create", "pidfd_open", "signalfd4", "recvmsg"),
)
_WAITS = (
    *("read", "readv", "write", "poll", "ppoll", "connect", "accept", "accept4", "sendto"),
    *("recvfrom", "sendmsg", "recvmsg", "wait4", "flock", "nanosleep", "clock_nanosleep"),
    *("epoll_wait", "epoll_pwait", "request_key", "openat"),
)

# Which calls can meet which error, by their manual pages, and where these have none, by the
# kernel's source.  Not there is what a kernel gives way to only by ending processes: small
# allocations that no control group counts, as for what is written to a socket.  poll(2) of few
# descriptors allocates nothing.
FAULTS: dict[str, tuple[str, ...]] = {
    "memory": (
        *("mmap", "mprotect", "brk", "mremap", "mlock", "mlockall", "mlock2", *_FORKS, "execve"),
        *("openat", "socket", "accept", "accept4", "socketpair", "eventfd2", "epoll_create1"),
        *("epoll_ctl", "pipe2", "memfd_create", "pidfd_open", "signalfd4", "sendmsg"),
        *("connect", "bind", "stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat"),
        *("getdents64", "add_key", "request_key", "keyctl", "seccomp", "fallocate", "ftruncate"),
    ),
    "descriptors": _OPENS,
    "files": tuple(name for name in _OPENS if name not in ("dup", "recvmsg")),
    "processes": _FORKS,
    "flight": ("sendmsg",),
    "quota": ("add_key", "request_key", "keyctl"),
    "interrupt": (*_WAITS, "keyctl"),
    "space": (
        *("write", "pwrite64", "ftruncate", "fallocate", "rename", "renameat", "mkdir", "fsync"),
        "openat",
    ),
    "kill": (),  # all of them
}
_ERRORS = {
    "memory": errno.ENOMEM,
    "descriptors": errno.EMFILE,
    "files": errno.ENFILE,
    "processes": errno.EAGAIN,
    "flight": errno.ETOOMANYREFS,
    "quota": errno.EDQUOT,
    "interrupt": errno.EINTR,
    "space": errno.ENOSPC,
}
# Operations of keyctl(2) that allocate, and so can meet ENOMEM; that make or link something, and so
# can meet EDQUOT; and that can be interrupted: while they wait for their turn, or for a key.
_ALLOCATES = {
    Operation.JOIN_SESSION_KEYRING, Operation.UPDATE, Operation.DESCRIBE, Operation.LINK,
    Operation.SEARCH, Operation.READ, Operation.MOVE, Operation.PKEY_QUERY, Operation.PKEY_ENCRYPT,
    Operation.PKEY_SIGN, Operation.GET_KEYRING_ID, Operation.GET_PERSISTENT,
}  # fmt: skip
_COUNTS = {
    Operation.JOIN_SESSION_KEYRING, Operation.UPDATE, Operation.LINK, Operation.MOVE,
    Operation.GET_PERSISTENT,
}  # fmt: skip
_INTERRUPTIBLE = {Operation.JOIN_SESSION_KEYRING}

# linux/ptrace.h, sys/ptrace.h
_POKEUSER, _GETREGS, _SYSCALL, _SEIZE, _INTERRUPT, _LISTEN = 6, 12, 24, 0x4206, 0x4207, 0x4208
_SYSGOOD, _FORK, _VFORK, _CLONE = 1, 2, 4, 8
_EVENT_STOP = 128
_WALL = 0x40000000
_EPOLL_CTL_ADD = 1  # sys/epoll.h
# struct user_regs_struct of x86-64, in words
_REGISTERS, _DX, _SI, _DI, _AX, _ORIGINAL_AX = 27, 12, 13, 14, 10, 15
_ENOSYS = -38

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long

_LASTS = 1.0  # seconds
_QUIET = 0.03  # seconds in which no process makes a call


class Step(NamedTuple):
    """A system call: of which kind of process, its name, its number among that kind's of that name,
    and the faults that it can meet."""

    role: str
    call: str
    number: int
    faults: tuple[str, ...]


def _step(told: list[Any]) -> Step:
    role, call, number, faults = told
    return Step(role, call, number, tuple(faults))


class Injector:
    """The processes of a running agent, once `injecting` has them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seize(self, pid: int) -> None:
        """Hold that process as well, which is stopped, and its children."""
        assert self._tell(f"seize {pid}") == ["seized"]

    def arm(self, fault: str = "", step: Step | None = None, *, lasting: bool = False) -> None:
        """Count calls from now on, and let that one meet a fault.

        If it is `lasting`, then for a second all later ones too of that kind of process that can.
        """
        role, call, number, _ = step or ("-", "-", 0, ())
        line = f"arm {fault or '-'} {role} {call} {number} {int(lasting)}"
        assert self._tell(line) == ["armed"]

    def disarm(self) -> list[Step]:
        """Wait until the agent rests; the calls since `arm`, and last the one that met a fault."""
        deadline = time.monotonic() + SECONDS
        while not self._tell("rest")[0]:
            assert time.monotonic() < deadline, "it never rests"
            time.sleep(_QUIET / 3)
        _, steps, met = self._tell("disarm")
        self.met = _step(met) if met else None
        return [_step(one) for one in steps]

    met: Step | None = None

    def _tell(self, line: str) -> list[Any]:
        out, into = self._process.stdout, self._process.stdin
        assert out is not None
        assert into is not None
        into.write(f"{line}\n")
        into.flush()
        answer = json.loads(out.readline())
        assert isinstance(answer, list)
        return answer


@contextmanager
def injecting(*roots: int) -> Iterator[Injector]:
    """Hold these processes and all their children, now and later, until the block ends."""
    with tracing(__name__, *roots) as process:
        yield Injector(process)


def _request(number: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _ptrace(number, pid, address, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace({number:#x})")


class _Tracer:
    def __init__(self) -> None:
        self._words = (ctypes.c_long * _REGISTERS)()
        self._address = ctypes.addressof(self._words)
        self._roles: dict[int, str] = {}
        self._results: dict[int, int] = {}  # what a call that isn't made gives, by the thread
        self._limits: dict[int, tuple[int, int]] = {}  # RLIMIT_NOFILE, to be restored
        self._breaks: dict[int, int] = {}  # what brk(2) was asked for, to be restored
        self._inside: set[int] = set()  # threads in a call
        self._keeper = 0
        self.last_stop = 0.0
        self._armed = False
        self._plan: tuple[str, str, str, int, bool] = "", "", "", 0, False
        self._counts: Counter[tuple[str, str]] = Counter()
        self._steps: list[Step] = []
        self._met: Step | None = None
        self._until = 0.0

    def arm(self, fault: str, role: str, call: str, number: int, lasting: bool) -> None:
        self._plan = fault, role, call, number, lasting
        self._counts, self._steps, self._met, self._until = Counter(), [], None, 0.0
        self._armed = True

    def disarm(self) -> tuple[list[Step], Step | None]:
        self._armed = False
        return self._steps, self._met

    def seize(self, pid: int) -> None:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                _request(_SEIZE, int(task.name), 0, _SYSGOOD | _FORK | _VFORK | _CLONE)
                _request(_INTERRUPT, int(task.name))
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            self.seize(int(child))

    def run(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                time.sleep(1)  # all have ended
                continue
            if not os.WIFSTOPPED(status):
                self._roles.pop(pid, None)
                self._inside.discard(pid)
                self._results.pop(pid, None)
                self._limits.pop(pid, None)
                self._breaks.pop(pid, None)
                self.last_stop = time.monotonic()
                continue
            number, event = os.WSTOPSIG(status), status >> 16
            with suppress(ProcessLookupError):  # it was killed meanwhile
                if number == signal.SIGTRAP | 0x80:
                    self.last_stop = time.monotonic()
                    if pid in self._inside:
                        self._inside.discard(pid)
                        self._leave(pid)
                    else:
                        self._inside.add(pid)
                        with suppress(ProcessLookupError):
                            self._enter(pid)
                    _request(_SYSCALL, pid)
                elif event == _EVENT_STOP and number != signal.SIGTRAP:
                    _request(_LISTEN, pid)  # stopped by a signal
                else:
                    # A thread that is seized in a call has its end before its next beginning.
                    _request(_SYSCALL, pid, 0, 0 if event else number)

    def _registers(self, pid: int) -> ctypes.Array[ctypes.c_long]:
        if _ptrace(_GETREGS, pid, None, self._address) == -1:
            raise OSError(ctypes.get_errno(), "ptrace(GETREGS)")
        return self._words

    def _enter(self, pid: int) -> None:
        registers = self._registers(pid)
        if registers[_AX] != _ENOSYS:  # it was in one when it was seized, and leaves it
            self._inside.discard(pid)
            return
        if not self._armed:
            return
        call = registers[_ORIGINAL_AX]
        name = NAMES.get(call, str(call))
        role = self._role(pid)
        self._counts[role, name] += 1
        step = Step(role, name, self._counts[role, name], _faults(pid, name, registers))
        self._steps.append(step)
        fault, *place, lasting = self._plan
        now = time.monotonic()
        if [*step[:3]] != place and not (lasting and now < self._until and role == place[0]):
            return
        if fault not in step.faults:
            return
        if not self._met:
            self._met, self._until = step, now + _LASTS
        if fault == "kill":
            os.kill(int(_field(pid, "Tgid")), signal.SIGKILL)
        elif fault == "descriptors":
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            self._limits[pid] = soft, hard
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, hard))
        elif name == "brk":
            # Its caller compares what it gets with what it asked for, in the same register.
            self._breaks[pid] = registers[_DI]
            _request(_POKEUSER, pid, 8 * _DI, 0)
        else:
            _request(_POKEUSER, pid, 8 * _ORIGINAL_AX, -1)
            self._results[pid] = -_ERRORS[fault]

    def _leave(self, pid: int) -> None:
        if (result := self._results.pop(pid, None)) is not None:
            _request(_POKEUSER, pid, 8 * _AX, result)
        if (asked := self._breaks.pop(pid, None)) is not None:
            _request(_POKEUSER, pid, 8 * _DI, asked)
        if limits := self._limits.pop(pid, None):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        registers = self._registers(pid)
        if registers[_ORIGINAL_AX] in (_NUMBERS["prctl"], _NUMBERS["execve"]):
            self._roles.pop(pid, None)  # it may have another name now

    def _role(self, pid: int) -> str:
        if not (role := self._roles.get(pid)):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except FileNotFoundError as error:
                raise ProcessLookupError(error.errno, error.strerror) from error
            group = int(_field(pid, "Tgid"))
            if name == "kagent-keeper":
                self._keeper = self._keeper or group
                # A fork has its parent's name until it has lost what its parent has.
                name = name if group == self._keeper else "fork"
            role = self._roles[pid] = name.removeprefix("kagent-")
        return role


def _field(pid: int, name: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise ProcessLookupError(errno.ESRCH, f"{pid} has ended")


def _faults(pid: int, name: str, registers: ctypes.Array[ctypes.c_long]) -> tuple[str, ...]:
    return tuple(
        fault
        for fault, names in FAULTS.items()
        if fault == "kill" or (name in names and _can_meet(pid, fault, name, registers))
    )


def _can_meet(pid: int, fault: str, name: str, registers: ctypes.Array[ctypes.c_long]) -> bool:
    if name == "keyctl":
        allowed = {"memory": _ALLOCATES, "quota": _COUNTS, "interrupt": _INTERRUPTIBLE}[fault]
        return registers[_DI] in allowed
    if fault == "space" and name == "openat":
        return bool(registers[_DX] & os.O_CREAT)
    if fault == "space" and name in ("write", "pwrite64"):
        with suppress(OSError):
            return os.readlink(f"/proc/{pid}/fd/{registers[_DI]}").startswith("/home")
        return False
    if fault == "interrupt" and name in ("read", "write", "openat"):
        # What waits: a pipe or a socket.
        if name == "openat":
            return False
        with suppress(OSError):
            return not os.readlink(f"/proc/{pid}/fd/{registers[_DI]}").startswith("/")
        return False
    return name != "epoll_ctl" or registers[_SI] == _EPOLL_CTL_ADD


def main() -> None:
    """The process that injects."""
    tracer = _Tracer()
    ready = threading.Event()
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def seize(*_: object) -> None:
        tracer.seize(asked.get())
        done.put(None)

    signal.signal(signal.SIGUSR1, seize)

    def obey() -> None:
        ready.wait()
        print("ready", flush=True)
        for line in sys.stdin:
            match line.split():
                case ["arm", fault, role, call, number, lasting]:
                    tracer.arm(fault, role, call, int(number), lasting == "1")
                    told: list[object] = ["armed"]
                case ["seize", pid]:
                    # Who traces is a thread.
                    asked.put(int(pid))
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                    done.get()
                    told = ["seized"]
                case ["rest"]:
                    told = [time.monotonic() - tracer.last_stop > _QUIET]
                case _:
                    told = ["disarmed", *tracer.disarm()]
            print(json.dumps(told), flush=True)

    threading.Thread(target=obey, daemon=True).start()
    for root in map(int, sys.argv[1:]):
        # Their limits may be changed by who is the same user, and that is the real one.
        os.setresgid(int(_field(root, "Gid")), 0, 0)
        os.setresuid(int(_field(root, "Uid")), 0, 0)
        tracer.seize(root)
    ready.set()
    tracer.run()


if __name__ == "__main__":
    main()
