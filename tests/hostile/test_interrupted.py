"""A front that is killed between two steps of what it does: the next one finishes them.

At each of its key system calls, by who is the same user.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.protocol import messages
from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import AddIdConstrained, Message, RequestIdentities, Unlock
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.exposed import put_a_key_where_others_reach_it, reached
from tests.hostile.people import Login, attack, turn
from tests.hostile.stepping import Stop, stepping
from tests.support.programs import Agent, children_of

MOST_YOUNG_FRONTS = 3  # after some more the next one comes late


def moments(agent: Agent) -> Iterator[int]:
    """1, 2, …: for `interrupt`, and with time for the agent to get over it."""
    number = 0
    while True:
        number += 1
        if number % MOST_YOUNG_FRONTS == 0:
            time.sleep(1.1)
        yield number


def front_of(agent: Agent) -> int:
    if agent.keeper != agent.process.pid:
        return agent.front
    return children_of(agent.keeper)[-1]  # the stand-in's


def interrupt(agent: Agent, message: Message, number: int) -> bool:
    """Ask for that, and kill the front after so many of its key system calls; False if it makes
    fewer."""
    stops, killed = 0, False
    with Client(agent.socket) as client:
        client.ask(RequestIdentities())  # until there is one
        front = front_of(agent)

        def at(stop: Stop) -> bool:
            nonlocal stops, killed
            if killed or not Path(f"/proc/{front}/task/{stop.pid}").exists():
                return False
            stops += 1
            killed = stops == 2 * number  # one before each, one after it
            return killed

        with stepping(agent.keeper) as stepper:
            client.send(message)
            stepper.until(lambda: select.select([client.stream], [], [], 0)[0], at)
    return killed


@pytest.mark.parametrize("what", ["lock", "unlock"])
def test_of_a_lock(attacked: Agent, falls: bool, what: str) -> None:
    """If the agent is locked after that, then nothing of it is in others' reach."""
    put_a_key_where_others_reach_it(attacked.person)
    left = []
    for number in moments(attacked):
        with Client(attacked.socket) as client:
            assert reached()
            assert what == "lock" or client.lock()
        message = messages.Lock(b"mine") if what == "lock" else Unlock(b"mine")
        killed = interrupt(attacked, message, number)
        with Client(attacked.socket) as client:
            client.ask(RequestIdentities())
            there = reached()
            if client.unlock() and there:
                left.append(number)
        if not killed:
            break
    print(number, "moments")
    assert number > 3
    assert bool(left) == falls, left


@pytest.mark.skipif("rsa" not in PAIRS, reason="this kernel takes no private keys")
def test_of_a_load_with_a_constraint(attacked: Agent, falls: bool) -> None:
    """If the key is to be asked about after that, then it doesn't sign around the agent."""
    signed = []
    with attack(attacked.person, Login.SAME, "take_away") as attacker:
        for number in moments(attacked):
            pair = Pair.rsa()
            with Client(attacked.socket) as client:
                assert client.add(pair)
            assert int(turn(attacker, "0 stays")), "the control: it can be taken"
            load = AddIdConstrained(pair.private, "a key", (Confirm(),))
            killed = interrupt(attacked, load, number)
            with Client(attacked.socket) as client:
                held = client.lists(pair) and not client.signs(pair)
                if held and int(turn(attacker, "sign")):
                    signed.append(number)
                client.remove_all()
            if not killed:
                break
    print(number, "moments")
    assert bool(signed) == falls, signed
