"""Clients that ask an agent for much, at once and badly, and look at each of its answers."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

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
_MOST_LOADS = 16  # at once: kagent.keeper
_SIGN_WORKERS = 2  # sockets of theirs


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
    """What an agent has in use: what its processes have for themselves, descriptors, keys of its
    user in the kernel, and processes that live long."""

    memory: int  # KiB
    descriptors: int
    keys: int
    processes: int

    @classmethod
    def of(cls, agent: Agent) -> Figures:
        """Now.  As root."""
        pids = [agent.keeper, *children_of(agent.keeper)]
        pids += [one for pid in pids[1:] for one in children_of(pid)]
        memory = descriptors = 0
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                memory += sum(map(int, re.findall(r"^Private_\w+: +(\d+)", rollup, re.MULTILINE)))
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        users = Path("/proc/key-users").read_text()
        keys = re.search(rf"^ *{agent.person.uid}: +\d+ (\d+)/", users, re.MULTILINE)
        return cls(memory, descriptors, int(keys[1]) if keys else 0, len(pids))

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
            f"{self.keys:3} keys, {self.processes} processes"
        )


def held(client: Client) -> list[Pair]:
    """Keys of each custody that there is here, given to the agent."""
    pairs = [make() for make in PAIRS.values() for _ in range(2)]
    assert all(client.add(pair) for pair in pairs)
    return pairs


def rested(agent: Agent, pairs: Sequence[Pair]) -> Figures:
    """What it has in use when all is answered, and what it starts for signatures is there."""
    with Client(agent.socket) as client:
        assert client.signs(pairs[0])
    last, now = None, Figures.of(agent)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and (last is None or now[1:] != last[1:]):
        time.sleep(_REST)
        last, now = now, Figures.of(agent)
    return now


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
