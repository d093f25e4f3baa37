"""However much is asked for at once, and whoever ends: no answer is wrong, and nothing is lost."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.hostile.asking import Client, Pair
from tests.support.load import (
    CROWD,
    Figures,
    Load,
    Succession,
    Taken,
    held,
    idle_connections,
    kill_fronts,
    rested,
    signs,
)
from tests.support.programs import Agent, wait_until

CONNECTIONS = 2000
CLIENTS = 64
FIRST, LOADS = 50, 150
TRIES = 3
# contrib/soak goes on for an hour.
EACH = 3  # acts of each kind: some take seconds, of others there are hundreds meanwhile
KILLING = 6.0  # seconds


@pytest.fixture
def pairs(kagent: Agent) -> list[Pair]:
    """Keys that the agent holds."""
    with Client(kagent.socket) as client:
        return held(client)


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """As many as root may have, for the tests' ends of the connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_many_connections(kagent: Agent, pairs: list[Pair]) -> None:
    """Who has none yet, and who has, is answered; and when they go, nothing of them stays."""
    before = rested(kagent, pairs)
    with ExitStack() as stack:
        clients = idle_connections(kagent.socket, CONNECTIONS, stack)
        amid = Figures.of(kagent)
        for client in clients[:: CONNECTIONS // 50]:
            assert client.signs(pairs[0])
        with Client(kagent.socket) as another:
            assert another.signs(pairs[0])
    assert amid.descriptors >= before.descriptors + CONNECTIONS
    wait_until(lambda: Figures.of(kagent).is_no_more_than(before))


def test_a_crowd_of_all_kinds(kagent: Agent, pairs: list[Pair]) -> None:
    before = rested(kagent, pairs)
    with Load(kagent.socket, pairs) as load:
        for act, count in CROWD.items():
            load.start(act, count)
        wait_until(lambda: load.wrong or all(load.done[act.__name__] >= EACH for act in CROWD))
    print(dict(load.done), before, Figures.of(kagent), sep="\n")
    assert not load.wrong
    wait_until(lambda: Figures.of(kagent).is_no_more_than(before))


def test_clients_while_fronts_are_killed(kagent: Agent, pairs: list[Pair]) -> None:
    """They see a connection that ends, and never a wrong answer; and no key is lost."""
    before = rested(kagent, pairs)
    with Load(kagent.socket, pairs) as load:
        load.start(signs, CLIENTS)
        killed = kill_fronts(kagent, KILLING)
        answered = load.done["signs"]
        wait_until(lambda: load.wrong or load.done["signs"] > answered)
    print(f"{killed} fronts killed", dict(load.done))
    assert not load.wrong
    assert killed
    wait_until(lambda: Figures.of(kagent).is_no_more_than(before))
    with Client(kagent.socket) as client:
        assert all(client.lists(pair) and client.signs(pair) for pair in pairs)


def test_one_load_after_the_other(kagent: Agent) -> None:
    """Removed each time: what was there after the first is there at the end, and no more.

    A heap may grow once, for whatever reason: what is lost with each load does so every time.
    """
    with Client(kagent.socket) as client:
        succession = Succession(client)
        succession.go_on(1)
        start = Taken.of(kagent)
        succession.go_on(FIRST)
        first = Taken.of(kagent)
        for _ in range(TRIES):
            succession.go_on(LOADS)
            now = Taken.of(kagent)
            if not (grown := now.grown(start, first)):
                break
            print(first, now, sep="\n")
            first = first._replace(memory=now.memory)
        assert not grown
