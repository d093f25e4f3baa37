"""What each kind of kagent's processes has left, found out by running code in its place.  As root.

For each role there is a process that does what the role is for, of an agent that has keys; it is
stopped where it waits, and made to try what an attacker would who has taken it over.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kagent.jobs import roles
from kagent.jobs.jobs import Kind
from kagent.jobs.roles import Role
from kagent.keyctl.syscalls import Operation
from kagent.protocol.messages import AddIdentity, AddSmartcardKey, SignRequest, encode
from kagent.workers.errands import ERRANDS
from tests.destinations.keys import SECOND
from tests.hostile.asking import Client, Pair
from tests.support import bpf, injection
from tests.support.bpf import KILL, Filters
from tests.support.frames import A_KEY
from tests.support.programs import Agent, Person, agent, children_of, wait_until

ROLES = (roles.FOREGROUND, roles.KEEPER, *roles.CHILDREN)

# One of the system's libraries, where a token's may be.
_LIBRARY = next(Path("/usr/lib").glob("*-linux-gnu/libc.so.6"))

# As a front that was taken over could have any errand begun; its request never comes.
_HAVE_DONE = """
import gc, os, socket
from kagent.jobs.jobs import Job, Kind
[found] = [one for one in gc.get_objects() if type(one).__name__ == "Workers"]
held = [socket.socketpair() for _ in range(2)]
answered, answer = os.pipe()
given = [held[0][1].fileno(), held[1][1].fileno(), answer]
socket.send_fds(found._keeper._socket, [Job(Kind({kind}), body_length=100).pack()], given)
for one in given:
    os.close(one)
"""
_HANG_UP = """
for one in held:
    one[0].close()
    one[1].detach()
os.close(answered)
"""
# Of those in kagent.custody.rings; home is where the login is.
_KEYRINGS = (*("login", "user", "private", "lent", "withdrawn", "fetched", "sealed", "inbox"),)
# The keeper knows which keyring is which.
_TELL = """
import json, kagent.keyctl as k
made = [(one.serial, about.description) for one, about in k.session_keyring().described()]
open({path!r}, "w").write(json.dumps(made))
"""

# It has a source, which gives nothing as long as somebody waits for it.
_FETCHED = SECOND.public
_CONFIGURED = f"""\
[[identity]]
public = "{_FETCHED.line()}"
command = ["sleep", "600"]
"""

_NONE = "none"
_KINDS = {
    "eventpoll": "epoll",
    "pipe": "pipes",
    "socket": "sockets",
    "memfd": "memory files to read",
}

# sys/ptrace.h, sys/wait.h
_SEIZE, _INTERRUPT, _SYSCALL, _GETEVENTMSG = 0x4206, 0x4207, 24, 0x4201
_TRACE_FORK, _EVENT_FORK = 2, 1
_WALL = 0x40000000
_ACCEPTS = 0x10000  # linux/net.h: __SO_ACCEPTCON


class Left(NamedTuple):
    """What one process has, each in words for a cell of the table."""

    role: Role
    system_calls: str
    keyrings: str
    descriptors: str
    files: str
    programs: str
    sockets: str
    others: str

    @property
    def row(self) -> str:
        """A line of the table in SECURITY.md."""
        cells = (self.role.title, *self[1:])
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| process | system calls | reaches keyrings | has open | opens files | starts | connects to "
    "| can do to your programs |\n|---|---|---|---|---|---|---|---|"
)


class Scene:
    """An agent that is asked for all that it has processes for."""

    def __init__(self, running: Agent, victim: int) -> None:
        """`victim` is another process of the same user."""
        self.agent = running
        self.victim = victim
        path, pair = running.person.home / "keyrings", Pair.new()
        with Client(running.socket) as client:
            assert client.add(pair)
            assert client.signs(pair)
        injection.python_in(running.keeper, _TELL.format(path=str(path)))
        found = {_ring(name): serial for serial, name in json.loads(path.read_text())}
        self.keyrings = {name: found[name] for name in _KEYRINGS}

    @contextmanager
    def stopped(self, role: Role) -> Iterator[tuple[int, injection._Registers]]:
        """A process of that kind, stopped; with its registers."""
        if role is roles.SEAL:
            with self._sealing() as found:
                yield found
            return
        with self._waiting(role) as pid, injection._stopped(pid) as registers:
            yield pid, registers

    def _waiting(self, role: Role) -> AbstractContextManager[int]:
        kinds = [kind for kind, errand in ERRANDS.items() if errand.role is role]
        if kinds:
            return self._errand(kinds[0], role)
        known: dict[Role, Callable[[], AbstractContextManager[int]]] = {
            roles.FOREGROUND: partial(self._there, lambda: [self.agent.process.pid]),
            roles.KEEPER: partial(self._there, lambda: [self.agent.keeper]),
            roles.FRONT: partial(self._there, lambda: [self.agent.front]),
            roles.SIGNERS: partial(self._there, lambda: self._children(roles.SIGNERS)),
            roles.SIGN: partial(self._there, lambda: self.agent.signers),
            roles.LOOKOUT: partial(self._there, lambda: self.agent.lookouts),
            roles.LOAD: partial(self._sent, roles.LOAD, A_KEY[:-3]),
            roles.REFUSE: self._refused,
            roles.TOKEN: partial(
                self._sent, roles.TOKEN, encode(AddSmartcardKey(str(_LIBRARY), "a PIN"))
            ),
            roles.SOURCE: partial(
                self._sent, roles.SOURCE, encode(SignRequest(_FETCHED.blob, b"data", 0))
            ),
        }
        assert role in known, (
            f"no scene has a {role.title}: say in tests/support/confinement.py how the agent comes "
            "to have one that waits"
        )
        return known[role]()

    def _children(self, role: Role) -> list[int]:
        return [pid for pid in children_of(self.agent.keeper) if _comm(pid) == role.name]

    @contextmanager
    def _there(self, pids: Callable[[], list[int]]) -> Iterator[int]:
        wait_until(lambda: pids())
        yield pids()[0]

    @contextmanager
    def _errand(self, kind: Kind, role: Role) -> Iterator[int]:
        front = self.agent.front
        injection.python_in(front, _HAVE_DONE.format(kind=int(kind)))
        try:
            wait_until(lambda: self._ready(role))
            yield self._children(role)[0]
        finally:
            injection.python_in(front, _HANG_UP)
            wait_until(lambda: not self._children(role))

    @contextmanager
    def _sent(self, role: Role, frame: bytes) -> Iterator[int]:
        with self.agent.connect() as stream:
            stream.sendall(frame)
            wait_until(lambda: self._ready(role))
            yield self._children(role)[0]

    @contextmanager
    def _refused(self) -> Iterator[int]:
        with Client(self.agent.socket) as client:
            assert client.lock()
            try:
                with self._sent(roles.REFUSE, A_KEY[:-3]) as pid:
                    yield pid
            finally:
                assert client.unlock()

    def _ready(self, role: Role) -> bool:
        """Whether there is one that has become what its role says, before it starts a program."""
        unconfined = not role.profile or role is roles.CERTIFY
        return any(unconfined or _is_confined(pid) for pid in self._children(role))

    @contextmanager
    def _sealing(self) -> Iterator[tuple[int, injection._Registers]]:
        """A seal worker, which waits for nothing: stopped when it has lost its system calls."""
        keeper = self.agent.keeper
        injection._ptrace(_SEIZE, keeper, _TRACE_FORK)
        try:
            with self.agent.connect() as stream:
                stream.sendall(encode(AddIdentity(Pair.new().private, "a key")))
                pid = self._caught(keeper)
                registers = injection._Registers()
                injection._ptrace(injection._GETREGS, pid, ctypes.addressof(registers))
                yield pid, registers
                injection._ptrace(injection._SETREGS, pid, ctypes.addressof(registers))
                injection._ptrace(injection._DETACH, pid)
        finally:
            injection._ptrace(_INTERRUPT, keeper)
            os.waitpid(keeper, _WALL)
            injection._ptrace(injection._DETACH, keeper)

    def _caught(self, keeper: int) -> int:
        while True:
            _, status = os.waitpid(keeper, _WALL)
            if status >> 16 != _EVENT_FORK:
                number = 0 if status >> 16 else os.WSTOPSIG(status)
                injection._ptrace(injection._CONT, keeper, number)
                continue
            child = ctypes.c_ulong()
            injection._ptrace(_GETEVENTMSG, keeper, ctypes.addressof(child))
            injection._ptrace(injection._CONT, keeper)
            pid = int(child.value)
            os.waitpid(pid, _WALL)
            while not _is_confined(pid):
                injection._ptrace(_SYSCALL, pid)
                assert os.WIFSTOPPED(os.waitpid(pid, _WALL)[1])
            if _comm(pid) == roles.SEAL.name:
                return pid
            injection._ptrace(injection._DETACH, pid)


@contextmanager
def scene(person: Person) -> Iterator[Scene]:
    """An agent of `person`, with all around it that its processes are for."""
    home = person.home
    helper = person.file("helper", "#!/bin/sh\nexec sleep 600\n", 0o700)
    for name in (".ssh", ".config", ".config/kagent"):
        person.run("mkdir", "-p", "-m", "700", home / name)
    for name in FILES.values():
        if not name.startswith("/"):
            person.file(name, "")
    person.file(FILES["configuration"], _CONFIGURED)
    with socket.socket(socket.AF_UNIX) as behind:
        path = home / "behind"
        behind.bind(str(path))
        os.chown(path, person.uid, person.gid)
        behind.listen()
        env = {"SSH_PKCS11_HELPER": str(helper)}
        with (
            agent(person, "kagent", "--behind", path, env=env) as running,
            person.start("sleep", "600") as victim,
        ):
            try:
                yield Scene(running, victim.pid)
            finally:
                victim.kill()


# What is tried to be opened, relative to the home.
FILES = {
    "known_hosts": ".ssh/known_hosts",
    "configuration": ".config/kagent/kagent.toml",
    "/proc": "/proc/self/stat",
    "all that you may": ".ssh/id_ed25519",
}


def measure(role: Role, at: Scene) -> Left:
    """Have a process of that kind try it all."""
    with at.stopped(role) as (pid, registers):
        _check_status(pid)
        filters = bpf.filters_of(pid)
        attempt = partial(_attempt, pid, registers, filters)
        cells = (
            _system_calls(filters),
            _reached(attempt, at.keyrings),
            _descriptors(pid),
            _files(attempt, at.agent.person.home),
            _programs(attempt, filters),
            _sockets(attempt, at.agent.socket),
            _others(attempt, at.victim),
        )
    return Left(role, *cells)


def _attempt(
    pid: int,
    registers: injection._Registers,
    filters: Filters,
    name: str,
    *arguments: int | bytes,
) -> int:
    """What that system call gives in the process; -errno, or KILL if it would end it."""
    [number] = [number for number, known in bpf.calls().items() if known == name]
    numbers = [one if isinstance(one, int) else 0 for one in arguments]
    if filters.verdict(number, *numbers) & 0xFFFF0000 == KILL:
        return -KILL
    return injection._call(pid, registers, "syscall", number, *arguments)


Attempt = Callable[..., int]


def _system_calls(filters: Filters) -> str:
    if not filters.programs:
        return "all"  # _check_status has seen that there is no filter that the kernel doesn't tell
    kept = filters.kept
    return f"{len(kept)}, {sum(not anyhow for anyhow in kept.values())} of them in part"


def _reached(attempt: Attempt, keyrings: dict[str, int]) -> str:
    """The keyrings that it may do something with, by whatever key call it has left."""
    found = []
    for name, serial in keyrings.items():
        tries: dict[Operation, tuple[int | bytes, ...]] = {
            Operation.SEARCH: (serial, b"keyring", b"nothing of that name", 0),
            Operation.READ: (serial, 0, 0),
            Operation.GET_KEYRING_ID: (serial, 0),
            Operation.LINK: (serial, serial),
            Operation.UNLINK: (serial, serial),
        }
        if any(_is_let(attempt("keyctl", call, *words)) for call, words in tries.items()):
            found.append(name)
    return ", ".join(found) or _NONE


def _is_let(result: int) -> bool:
    """Whether it can do so, or there is only nothing to be found, or nothing that may be linked."""
    return result >= 0 or -result in (errno.ENOKEY, errno.ENOENT, errno.EDEADLK)


def _descriptors(pid: int) -> str:
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listening = {line[6] for line in lines if int(line[3], 16) & _ACCEPTS}
    kinds = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if int(link.name) < 3:
            continue
        target = os.readlink(link)
        [kind] = re.findall(r"^(?:anon_inode:\[|/)?(\w+)", target)
        if target.endswith("/.local/state/kagent/hosts"):
            kind = "what was learned of hosts"
        elif re.sub(r"\D", "", target) in listening:
            kind = "the listening socket"
        about = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
        if kind == "memfd" and int(about.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE:
            kind = "memory files"
        kinds.add(_KINDS.get(kind, kind))
    return ", ".join(sorted(kinds)) or _NONE


def _files(attempt: Attempt, home: Path) -> str:
    opened = []
    for what, path in FILES.items():
        descriptor = attempt("openat", -100, str(home / path).encode(), os.O_RDONLY)
        if descriptor >= 0:
            opened.append(what)
            attempt("close", descriptor)
    if not opened:
        return _NONE
    path = str(home / FILES["all that you may"]).encode()
    descriptor = attempt("openat", -100, path, os.O_WRONLY)
    if descriptor >= 0:
        attempt("close", descriptor)
        return "all that you may"
    everything = opened == list(FILES)
    return "to read: " + ("all that you may" if everything else ", ".join(opened))


def _programs(attempt: Attempt, filters: Filters) -> str:
    starts = attempt("execve", b"/nonexistent", 0, 0) == -2  # ENOENT
    forks = filters.allows("clone", signal.SIGCHLD)
    return "programs" if starts else "forks" if forks else _NONE


def _sockets(attempt: Attempt, path: Path) -> str:
    """To what it can connect: the agent's own socket stands for all of this machine's."""
    found = []
    for name, family in (("unix", socket.AF_UNIX), ("internet", socket.AF_INET)):
        stream = attempt("socket", family, socket.SOCK_STREAM, 0)
        if stream >= 0:
            found.append(name)
            attempt("close", stream)
    return ", ".join(found) or _NONE


def _others(attempt: Attempt, victim: int) -> str:
    """Signal 0 does nothing; and of memory at no address nothing is read, but EFAULT says why."""
    signals = attempt("kill", victim, 0) == 0
    place = b"\0" * 32
    debugs = attempt("process_vm_readv", victim, place, 1, place, 1) >= 0
    return " and ".join(["signals"] * signals + ["debugs"] * debugs) or _NONE


def _check_status(pid: int) -> None:
    """What is so of each of them: no program of the user's can look into it, none that it starts
    gets privileges, and no thread has more than the others."""
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0, f"{_comm(pid)} can be looked into"
    told = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = (thread / "status").read_text()
        told.add(
            tuple(
                re.findall(
                    r"^(?:NoNewPrivs|Seccomp_filters|Cap(?:Inh|Prm|Eff|Amb)):\t(\w+)", status, re.M
                )
            )
        )
    assert len(told) == 1, told
    *capabilities, no_new_privileges, filters = told.pop()
    assert no_new_privileges == "1"
    assert not any(int(one, 16) for one in capabilities), capabilities
    assert len(bpf.filters_of(pid).programs) == int(filters), "the kernel doesn't tell its filters"


def table(left: list[Left]) -> str:
    """As it stands in SECURITY.md."""
    return "\n".join([HEAD, *(one.row for one in left)]) + "\n"


def _ring(name: str) -> str:
    name = name.removeprefix("kagent:").partition(":")[0]
    return "user" if name.startswith("_uid.") else "login" if name.startswith("_ses") else name


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_confined(pid: int) -> bool:
    try:
        return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
