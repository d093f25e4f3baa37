"""Clients that ask an agent for much, at once and badly, and look at each of its answers."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from kagent.custody.shelf import Shelf
from kagent.private.verify import BadSignature, verify
from kagent.protocol.constraints import Lifetime
from kagent.protocol.messages import (
    Failure,
    IdentitiesAnswer,
    Message,
    RequestIdentities,
    SignResponse,
    encode,
)
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import ProtocolError
from tests.hostile.asking import PAIRS, Client, Pair, sign
from tests.support.programs import SECONDS, Agent, children_of

_PAUSE = 0.02  # seconds, of who is slow or was turned away
_AHEAD = 500  # requests of one who doesn't read
_KILLED_EVERY = 0.1
_REST = 0.5
_PATIENCE = 600.0  # of the last of many, on a machine that is busy otherwise
_MOST_LOADS = 24  # at once: kagent.keeper
_INBOX_BYTES = 16  # what such a keyring counts: its description
_SIGN_WORKERS = 2  # sockets of theirs
_MEMFD = "/memfd:"
_KEPT = 512  # KiB, in one process
_RSA_PAIRS = 8
_SIGNED = 7  # of so many loads one


class Closed(Exception):
    """The agent has ended the connection, or lets nobody in."""


class Load:
    """Threads that keep an agent busy, until the block ends.

    `done` counts what they did, and the connections that were `closed` meanwhile; `wrong` are the
    answers that no agent may give.
    """

    def __init__(self, path: Path, pairs: Sequence[Pair]) -> None:
        """`pairs` are keys that the agent holds, and goes on to hold."""
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._path = path
        self._pairs = pairs
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def start(self, act: Callable[[Load, Client], None], count: int = 1) -> None:
        """Have so many clients do that over and over, on one connection as long as it lasts."""
        for _ in range(count):
            thread = threading.Thread(target=self._repeat, args=[act], daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def over(self) -> bool:
        """Whether a client that takes long is to end."""
        return self._over.is_set()

    def pair(self) -> Pair:
        """One of the keys."""
        return random.choice(self._pairs)

    def ask(self, client: Client, message: Message) -> Message:
        """The answer.  Raises Closed."""
        client.send(message)
        return self.answer(client)

    def answer(self, client: Client) -> Message:
        """The next answer on that connection.  Raises Closed."""
        try:
            answer = client.answer()
        except ProtocolError as error:
            self.say(f"a malformed answer: {error}")
            raise Closed from error
        if answer is None:
            raise Closed
        return answer

    def check(self, pair: Pair, data: bytes, answer: Message) -> None:
        """Whether it is a signature of that, by that key."""
        if not isinstance(answer, SignResponse):
            self.say(f"{type(answer).__name__} instead of a signature")
            return
        try:
            verify(PublicKey.parse(pair.blob), answer.signature, data)
        except (BadSignature, ProtocolError) as error:
            self.say(f"a wrong signature: {error}")

    def check_list(self, answer: Message) -> None:
        """Whether all keys are in it that stay."""
        if not isinstance(answer, IdentitiesAnswer):
            self.say(f"{type(answer).__name__} instead of a list")
        elif missing := {one.blob for one in self._pairs} - {one.blob for one in answer.identities}:
            self.say(f"{len(missing)} keys are missing in a list")

    def say(self, fault: str) -> None:
        """Count a wrong answer."""
        with self._lock:
            self.wrong.append(fault)

    def count(self, what: str) -> None:
        """Count something that was done."""
        with self._lock:
            self.done[what] += 1

    def _repeat(self, act: Callable[[Load, Client], None]) -> None:
        while not self.over:
            try:
                with Client(self._path) as client:
                    while not self.over:
                        act(self, client)
                        self.count(act.__name__)
            except (Closed, OSError, AssertionError):
                self.count("closed")
                time.sleep(_PAUSE)


def signs(load: Load, client: Client) -> None:
    """A signature, verified."""
    pair, data = load.pair(), os.urandom(32)
    load.check(pair, data, load.ask(client, sign(pair, data)))


def lists(load: Load, client: Client) -> None:
    """A list of the keys."""
    load.check_list(load.ask(client, RequestIdentities()))


def writes_slowly(load: Load, client: Client) -> None:
    """A request for a signature, some bytes at a time."""
    pair, data = load.pair(), os.urandom(32)
    frame = encode(sign(pair, data))
    for start in range(0, len(frame), 20):
        client.stream.sendall(frame[start : start + 20])
        time.sleep(_PAUSE)
    load.check(pair, data, load.answer(client))


def reads_slowly(load: Load, client: Client) -> None:
    """Many requests, and then all the answers, one by one."""
    client.stream.settimeout(_PAUSE)
    asked = 0
    frame = encode(RequestIdentities())
    with suppress(TimeoutError):
        for _ in range(_AHEAD):
            if client.stream.send(frame) < len(frame):
                raise Closed  # half of it is there: nothing more can be asked here
            asked += 1
    client.stream.settimeout(None)
    for _ in range(asked):
        load.check_list(load.answer(client))
        time.sleep(_PAUSE / 10)


def breaks_off(load: Load, client: Client) -> None:
    """Half a request, of a signature or of a key, and then nothing."""
    pair = load.pair()
    frame = encode(sign(pair))
    client.stream.sendall(frame[: random.randrange(1, len(frame))])
    time.sleep(_PAUSE)
    client.stream.shutdown(socket.SHUT_WR)
    client.stream.recv(1)
    load.count("breaks_off")
    raise Closed


def connects(load: Load, client: Client) -> None:
    """A connection, and no more."""
    load.count("connects")
    client.stream.close()
    raise OSError


def loads(load: Load, client: Client) -> None:
    """A key that is added, used and removed."""
    pair, data = Pair.new(), os.urandom(32)
    constraints = random.choice([[], [Lifetime(60)]])
    if client.add(pair, *constraints):
        load.check(pair, data, load.ask(client, sign(pair, data)))
        client.remove(pair)
        if not isinstance(load.ask(client, sign(pair, data)), Failure):
            load.say("a signature by a key that was removed")


# What may go on while the agent is well, and how many of each are a crowd.
CROWD = {
    signs: 16,
    lists: 4,
    writes_slowly: 4,
    reads_slowly: 2,
    breaks_off: 4,
    connects: 4,
    loads: 2,
}


class Figures(NamedTuple):
    """What an agent has in use: what its processes have for themselves, descriptors, processes that
    live long, its user's keys and bytes in the kernel's quota, keys that /proc/keys shows of that
    user, and what its shelves hold."""

    memory: int  # KiB
    descriptors: int
    keys: int
    processes: int
    bytes: int
    shown: int
    shelves: int  # bytes

    @classmethod
    def of(cls, agent: Agent) -> Figures:
        """Now.  As root."""
        pids = _processes(agent)
        memory = descriptors = 0
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                memory += _rollup(pid, r"Private_\w+")
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        uid = agent.person.uid
        users = Path("/proc/key-users").read_text()
        quota = re.search(rf"^ *{uid}: +\d+ \d+/\d+ (\d+)/\d+ (\d+)/", users, re.MULTILINE)
        keys, taken = map(int, quota.groups()) if quota else (0, 0)
        shown = [line for line in Path("/proc/keys").read_text().splitlines() if _is_of(uid, line)]
        return cls(
            memory, descriptors, keys, len(pids), taken, len(shown), _in_shelves(agent.keeper)
        )

    def is_no_more_than(self, before: Figures) -> bool:
        """Whether nothing has stayed but empty keyrings, which loads use again, and what the front
        has of sign workers that wait.
        """
        return (
            self.descriptors <= before.descriptors + _SIGN_WORKERS
            and self.processes <= before.processes
            and self.keys <= before.keys + _MOST_LOADS
        )

    def __str__(self) -> str:
        return (
            f"{self.memory / 1024:6.1f} MiB, {self.descriptors:4} descriptors, "
            f"{self.keys:3} keys of {self.bytes} bytes, {self.shown} in /proc/keys, "
            f"{self.processes} processes, {self.shelves} bytes in shelves"
        )


def memory_of(agent: Agent) -> dict[str, int]:
    """What each kind of process has that is no file's, in KiB, whoever shares it.  As root."""
    memory: Counter[str] = Counter()
    for pid in _processes(agent):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            memory[name] += _rollup(pid, "Anonymous")
    return dict(memory)


def _rollup(pid: int, fields: str) -> int:
    """The sum of these in /proc/PID/smaps_rollup, in KiB; proc_pid_smaps(5)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(rf"^{fields}: +(\d+)", rollup, re.MULTILINE)))


class Taken(NamedTuple):
    """What an agent has in use when it rests, and what memory each kind of process has of that."""

    figures: Figures
    memory: dict[str, int]  # KiB

    @classmethod
    def of(cls, agent: Agent) -> Taken:
        """As soon as it rests, with a lookout, which ends now and then.  As root."""
        with Client(agent.socket) as client:
            assert not client.signs(Pair.new())
        return cls(settled(agent), memory_of(agent))

    def grown(self, start: Taken, first: Taken) -> list[str]:
        """What is more than it was at `first`, in words; of memory, by more than it had grown from
        the `start` to that, and by more than libraries keep now and then.
        """
        before = first.figures
        allowed = before._replace(
            descriptors=before.descriptors + _SIGN_WORKERS,
            # As many empty keyrings may stay as loads had at once, to be used again.
            keys=before.keys + _MOST_LOADS,
            bytes=before.bytes + _MOST_LOADS * _INBOX_BYTES,
        )
        pairs = list(zip(Figures._fields, self.figures, allowed, strict=True))
        del pairs[0]  # the memory of all
        for name, now in self.memory.items():
            kib = first.memory.get(name, 0)
            spare = max(_KEPT, kib - start.memory.get(name, 0))
            pairs.append((f"memory of {name}", now, kib + spare))
        return [f"{name}: {now}, and not {most}" for name, now, most in pairs if now > most]

    def __str__(self) -> str:
        each = ", ".join(f"{name} {kib}" for name, kib in sorted(self.memory.items()))
        return f"{self.figures}; KiB: {each}"


def _processes(agent: Agent) -> list[int]:
    pids = [agent.keeper, *children_of(agent.keeper)]
    return pids + [one for pid in pids[1:] for one in children_of(pid)]


def _is_of(uid: int, line: str) -> bool:
    """Whether a line of /proc/keys is of a key of that user's; proc_keys(5)."""
    return line.split()[5] == str(uid)


def _in_shelves(keeper: int) -> int:
    files = {}
    for path in Path(f"/proc/{keeper}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(path).startswith(_MEMFD):
                files[path.stat().st_ino] = path
    total = 0
    for path in files.values():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            total += sum(map(len, Shelf(descriptor).entries().values()))
        finally:
            os.close(descriptor)
    return total


def held(client: Client) -> list[Pair]:
    """Keys of each custody that there is here, given to the agent."""
    pairs = [make() for make in PAIRS.values() for _ in range(2)]
    assert all(client.add(pair) for pair in pairs)
    return pairs


def rested(agent: Agent, pairs: Sequence[Pair]) -> Figures:
    """What it has in use when all is answered, and what it starts for signatures is there."""
    with Client(agent.socket) as client:
        assert client.signs(pairs[0])
    return settled(agent)


def settled(agent: Agent) -> Figures:
    """What it has in use once that doesn't change any more."""
    last, now = None, Figures.of(agent)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and (last is None or now[1:] != last[1:]):
        time.sleep(_REST)
        last, now = now, Figures.of(agent)
    return now


class Succession:
    """Keys loaded and removed, one after the other: of each kind in turn, with and without a
    lifetime, and every third once more before it goes.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Which take long to make.
        self._rsa = itertools.cycle([Pair.rsa() for _ in range(_RSA_PAIRS)])
        self._kinds = itertools.cycle([Pair.new, Pair.ecdsa, lambda: next(self._rsa)])
        self.number = 0

    def go_on(self, count: int) -> float:
        """So many loads, or one more, and removals; milliseconds that a load takes, the median.

        Raises AssertionError for an answer that is wrong.
        """
        client, took = self._client, []
        last = self.number + count
        while self.number < last:
            pair = next(self._kinds)()
            before = time.perf_counter()
            assert client.add(pair, *self._constraints()), f"load {self.number} was refused"
            took.append(time.perf_counter() - before)
            if self.number % 3 == 0:
                self.number += 1
                assert client.add(pair, *self._constraints()), f"load {self.number} was refused"
            if self.number % _SIGNED == 0:
                data = os.urandom(32)
                answer = client.ask(sign(pair, data))
                assert isinstance(answer, SignResponse), f"no signature after load {self.number}"
                verify(PublicKey.parse(pair.blob), answer.signature, data)
            assert client.remove(pair), f"the key of load {self.number} was not there"
            if self.number % _SIGNED == 0:
                assert not client.signs(pair), f"the key of load {self.number} was not removed"
            self.number += 1
        return statistics.median(took) * 1000

    def _constraints(self) -> list[Lifetime]:
        return [Lifetime(3600)] if self.number % 2 else []


def kill_fronts(agent: Agent, seconds: float) -> int:
    """Kill each front soon after it is there, for so long; how many."""
    killed = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(_KILLED_EVERY)
        with suppress(ProcessLookupError):
            os.kill(agent.front, signal.SIGKILL)
            killed += 1
    return killed


def idle_connections(path: Path, count: int, stack: ExitStack) -> list[Client]:
    """So many that are open, and have had an answer."""
    clients = [stack.enter_context(Client(path, _PATIENCE)) for _ in range(count)]
    for client in clients:
        client.send(RequestIdentities())
    for client in clients:
        assert isinstance(client.answer(), IdentitiesAnswer)
    return clients
