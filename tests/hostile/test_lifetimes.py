"""A key's lifetime ends it, whatever is killed while it is loaded and whatever the clock shows."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent.protocol.constraints import Lifetime
from kagent.protocol.messages import AddIdConstrained
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.stepping import Stepper, Stop, stepping
from tests.support.programs import Agent, Person, agent, wait_until

BOOTED = Path("/run/machine").exists()

# kagent on a machine that has slept: the clock of deadlines has gone on, poll(2)'s hasn't.
SLEEPER = """
import os
from kagent.custody import clock
now = clock.now
clock.now = lambda: now() + 3600 * clock.SECOND * os.path.exists({woken!r})
"""


def name_of(pid: int) -> str:
    """As ps shows it."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return "it has ended"


class Killing:
    """Loads of keys for a second, one for each key system call that a load makes.

    Whoever makes it is killed there, but for the keeper, with which all would end.
    """

    def __init__(self, agent: Agent, kind: str) -> None:
        self._agent = agent
        self._pairs: list[Pair] = []
        self._killed: list[str] = []
        self._keeper = agent.keeper
        with stepping(self._keeper) as stepper:
            while len(self._killed) == len(self._pairs):
                self._pairs.append(PAIRS[kind]())
                self._load(stepper)
                fronts = self._killed.count("kagent-front")
                if self._killed[-1:] == ["kagent-front"] and fronts % 3 == 0:
                    time.sleep(1.1)  # a keeper whose fronts end too early gives up

    def _load(self, stepper: Stepper) -> None:
        left = len(self._pairs)

        def at(stop: Stop) -> bool:
            nonlocal left
            left -= stop.pid != self._keeper
            if left or stop.pid == self._keeper:
                return False
            self._killed.append(name_of(stop.pid))
            return True

        with Client(self._agent.socket) as client:
            client.send(AddIdConstrained(self._pairs[-1].private, "a key", (Lifetime(1),)))
            stepper.until(lambda: select.select([client.stream], [], [], 0)[0], at)

    def left(self) -> list[str]:
        """After whose ends a key can still be seen or used."""
        with Client(self._agent.socket) as client:
            return [
                f"{number}: {name}"
                for number, (pair, name) in enumerate(
                    zip(self._pairs, self._killed, strict=False), 1
                )
                if client.lists(pair) or client.signs(pair)
            ]


@pytest.mark.parametrize("kind", PAIRS)
def test_killed_at_each_moment_of_a_load(attacked: Agent, falls: bool, kind: str) -> None:
    killing = Killing(attacked, kind)
    time.sleep(3)
    left = killing.left()
    assert bool(left) == falls, left


@pytest.mark.alone
@pytest.mark.skipif(not BOOTED, reason="only in a machine of its own may the clock be set")
@pytest.mark.parametrize("kind", PAIRS)
def test_the_clock_is_set(attacked: Agent, client: Client, falls: bool, kind: str) -> None:
    """Back: what has two seconds has no more.  Ahead: what has an hour has it still."""
    short, long = PAIRS[kind](), PAIRS[kind]()
    assert client.add(short, Lifetime(2))
    assert client.add(long, Lifetime(3600))
    with clock_moved_by(-7200):
        time.sleep(3.5)
        outlived = client.lists(short) or client.signs(short)
    with clock_moved_by(7200):
        time.sleep(0.5)
        lost = not client.lists(long) or not client.signs(long)
    assert (outlived, lost) == (falls, falls)
    assert client.signs(long) or falls


def test_the_machine_sleeps(person: Person) -> None:
    """For an hour: a key that has ended meanwhile is destroyed without anybody's asking for it."""
    woken = person.home / "woken"
    env = person.changed_kagent(SLEEPER.format(woken=str(woken)))
    with agent(person, "kagent", env=env) as kagent:
        with Client(kagent.socket) as client:
            assert client.add(Pair.new(), Lifetime(600))
        wait_until(lambda: kagent.signers)
        woken.touch()
        wait_until(lambda: not kagent.signers)


@contextmanager
def clock_moved_by(seconds: int) -> Iterator[None]:
    before, since = time.time(), time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, before + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, before + time.monotonic() - since)
