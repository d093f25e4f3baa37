"""Whatever is done to keyrings and processes: what is to be asked about doesn't sign unasked."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from kagent.protocol.constraints import Confirm, Lifetime
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.conftest import settle
from tests.hostile.people import Login, attack, finish
from tests.support.programs import Agent

SECONDS = 6.0


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("program", ["churn", "disturb"])
def test_amid_chaos(kagent: Agent, program: str, kind: str) -> None:
    """A key that was removed, has ended or is locked away doesn't sign either."""
    settle(kagent)
    pairs = [PAIRS[kind]() for _ in range(4)]
    signed: list[str] = []
    rounds = 0
    with attack(kagent.person, Login.SAME, program, kagent.keeper) as attacker:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            # That a connection ends, or a key is refused, is no weakness.
            with suppress(OSError, AssertionError):
                signed += _round(kagent, pairs[rounds % len(pairs)])
            rounds += 1
        told = finish(attacker)
    print(f"{rounds} rounds, {told.tries} tries")
    assert rounds
    assert not signed
    assert kagent.process.poll() is None


def _round(kagent: Agent, pair: Pair) -> list[str]:
    wrong = []
    with Client(kagent.socket, seconds=5) as client:
        if client.add(pair, Confirm()) and client.signs(pair):
            wrong.append("without a question")
        if client.add(pair) and client.lock():
            if client.signs(pair):
                wrong.append("while locked")
            assert client.unlock()
        if client.add(pair, Confirm()) and client.signs(pair):
            wrong.append("without a question, loaded again")
        if client.remove(pair) and client.signs(pair):
            wrong.append("after -d")
        if client.add(pair, Lifetime(1)):
            time.sleep(1.2)
            if client.signs(pair):
                wrong.append("after its time")
        if client.add(pair) and client.remove_all() and client.signs(pair):
            wrong.append("after -D")
    return wrong
