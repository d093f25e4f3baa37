"""What the benchmarks have in common: agents that hold a key, clients, and taking turns."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kagent.protocol.algorithms import SignFlags
from kagent.protocol.messages import SignRequest, Type, encode
from kagent.protocol.publickey import parse_line
from tests.support.programs import Agent, Person, agent, children_of

from .figures import Goal, Row, Series

Work = Callable[[], object]
Measure = Callable[[], float]
READY = b"."


class NotHere(Exception):
    """A benchmark can't be run on this machine, or as this user; says why."""


class WentWrong(Exception):
    """An agent didn't do what it was asked for."""


@dataclass(frozen=True)
class Bench:
    """Who runs the agents, and how often all is measured."""

    person: Person
    rounds: int

    def in_turn(self, *measures: Measure, times: int = 1) -> list[tuple[float, ...]]:
        """Each measure's values, taken in turn: so the first of each is a pair, and so on."""
        rounds = [[measure() for measure in measures] for _ in range(self.rounds * times)]
        return list(zip(*rounds, strict=True))

    def pair(
        self,
        benchmark: str,
        what: str,
        unit: str,
        this: tuple[str, Measure],
        that: tuple[str, Measure],
        goal: Goal | None = None,
        *,
        clients: int = 1,
        times: int = 1,
    ) -> Row:
        """A row of two measures, taken in turn."""
        one, other = self.in_turn(this[1], that[1], times=times)
        pair = Series(this[0], one), Series(that[0], other)
        return Row(benchmark, what, unit, *pair, goal, clients)

    @contextmanager
    def holding(self, program: str, *keys: Path, options: tuple[str, ...] = ()) -> Iterator[Agent]:
        """An agent that has these keys, until the block ends."""
        with agent(self.person, program, *options) as running:
            if keys:
                running.run("ssh-add", "-q", *keys)
            yield running


class Client:
    """A connection to an agent."""

    def __init__(self, path: Path) -> None:
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(60)
        self.stream.connect(str(path))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def ask(self, frame: bytes, answered: Type) -> None:
        """Send a request and receive the answer.  Raises WentWrong if it is of another type."""
        self.stream.sendall(frame)
        answer = self.stream.recv(65536)
        length = 4 + struct.unpack(">I", answer[:4])[0] if answer else 0
        kind, received = answer[4:5], len(answer)
        while received < length and answer:
            answer = self.stream.recv(65536)
            received += len(answer)
        if kind != bytes((answered,)) or received != length:
            raise WentWrong(f"{answered.name} didn't come, but {kind!r} of {received} bytes")

    def sign(self, frame: bytes, count: int = 1) -> None:
        """Have it sign so often, one after the other."""
        repeat(lambda: self.ask(frame, Type.SIGN_RESPONSE), count)


def sign_request(key: Path) -> bytes:
    """What asks for a signature with that key, of as much as ssh has signed at a login."""
    public, _ = parse_line(key.with_name(f"{key.name}.pub").read_text())
    flags = SignFlags.RSA_SHA2_256 if public.type == "ssh-rsa" else SignFlags(0)
    return encode(SignRequest(public.blob, os.urandom(200), flags))


def one_client(path: Path, frame: bytes, count: int) -> float:
    """Milliseconds for a signature, if one connected client asks for so many."""
    client = _connected(path, frame)
    with client:
        return milliseconds(lambda: client.sign(frame, count)) / count


def first_signature(path: Path, frame: bytes) -> float:
    """Milliseconds until a client that connects has its first signature."""

    def connect_and_sign() -> None:
        with Client(path) as client:
            client.sign(frame)

    return milliseconds(connect_and_sign)


def many_clients(path: Path, frame: bytes, clients: int, each: int) -> float:
    """Signatures in a second, if so many connected clients ask at once, for so many each."""

    def prepared() -> Work:
        client = _connected(path, frame)
        return lambda: client.sign(frame, each)

    return rate(clients, each, prepared)


def _connected(path: Path, frame: bytes) -> Client:
    """One who has a signature already: with the first, kagent also learns who asks."""
    client = Client(path)
    client.sign(frame)
    return client


def rate(processes: int, each: int, prepared: Callable[[], Work]) -> float:
    """How often in a second processes do something `each` times, all together.

    `prepared` runs in each process before the common start, and gives what is timed.
    """
    gate, opener = os.pipe()
    counter, ready = os.pipe()
    children = [_child(gate, opener, ready, prepared) for _ in range(processes)]
    os.close(gate)
    os.close(ready)
    try:
        _all_of(counter, processes)
        begin = time.perf_counter()
        os.close(opener)
        opener = -1
        _all_of(counter, processes)  # done; how long a process takes to end is not ours
        return processes * each / (time.perf_counter() - begin)
    finally:
        if opener >= 0:
            os.close(opener)
        os.close(counter)
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _all_of(counter: int, processes: int) -> None:
    for _ in range(processes):
        if os.read(counter, 1) != READY:
            raise WentWrong("a client failed, as it says above")


def _child(gate: int, opener: int, ready: int, prepared: Callable[[], Work]) -> int:
    if child := os.fork():
        return child
    try:
        os.close(opener)
        work = prepared()
        os.write(ready, READY)
        os.read(gate, 1)
        work()
        os.write(ready, READY)
    except Exception as error:
        os.write(2, f"a client: {error}\n".encode())
        os.write(ready, b"!")
    finally:
        # Whatever happens: what ends the agents must not run in here.
        os._exit(1)


def repeat(work: Work, count: int) -> None:
    """Do something so often."""
    for _ in range(count):
        work()


def milliseconds(work: Work) -> float:
    """What something takes."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def below(pid: int) -> Iterator[int]:
    """A process, its children, and theirs."""
    yield pid
    for child in children_of(pid):
        yield from below(child)


def name_of(pid: int) -> str:
    """A process's, empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
