"""A load worker that was taken over, by the one key that it reads, reaches nothing that is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.protocol.constraints import Confirm
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.conftest import settle
from tests.support import frames
from tests.support.frames import A_KEY
from tests.support.injection import python_in
from tests.support.programs import Agent, Person, agent, children_of, wait_until

# Its end, and what it has handed over, say that it brings what `left` says; its answer, whatever it
# likes of whatever key.
LIE = """
from kagent.custody.identity import Custody, Identity
from kagent.workers import load
def carry_out(loading, payload):
    loading._hand_over(b"something")
    return {answer}
load._Loading.carry_out = carry_out
load.LEFT = dict.fromkeys(Custody, load.LEFT[Custody("{left}")])
"""
LOADED = 'load.Loaded(identity=Identity({blob!r}, "", Custody("{custody}")))'


@pytest.fixture
def kagent(person: Person) -> Iterator[Agent]:
    with agent(person) as running:
        settle(running)
        yield running


def lie(kagent: Agent, code: str) -> None:
    """Send a key that makes its load worker that."""
    others = set(kagent.children)
    with kagent.connect() as stream:
        stream.sendall(A_KEY[:-3])
        wait_until(lambda: _confined(set(children_of(kagent.keeper)) - others))
        [worker] = set(children_of(kagent.keeper)) - others
        python_in(worker, code)
        stream.sendall(A_KEY[-3:])
        frames.answer(stream)


def _confined(pids: set[int]) -> bool:
    return any("Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text() for pid in pids)


@pytest.mark.parametrize("left", ["sealed", "device"])
@pytest.mark.parametrize("kind", PAIRS)
def test_it_changes_no_constraints(kagent: Agent, kind: str, left: str) -> None:
    """By an answer for a key that is held, of which it has brought nothing."""
    pair = PAIRS[kind]()
    with Client(kagent.socket) as client:
        assert client.add(pair, Confirm())
        shown = kagent.run("kagentctl", "show").stdout
        custody = "sealed" if "sealed" in shown else "kernel"
        if left == custody:
            pytest.skip("what it brings takes the place of the key")
        answer = LOADED.format(blob=pair.blob, custody=custody)
        lie(kagent, LIE.format(answer=answer, left=left))
        assert not client.signs(pair)
        assert kagent.run("kagentctl", "show").stdout == shown


def test_it_keeps_nobody_from_loading(kagent: Agent) -> None:
    """By leaving keys that it doesn't answer for: more than may be on their way at once."""
    for _ in range(20):
        lie(kagent, LIE.format(answer="load.os._exit(load.LEFT['device'])", left="device"))
    with Client(kagent.socket) as client:
        assert client.add(Pair.new())
