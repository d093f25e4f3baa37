"""Kernel keys that another program of the login ends, hides or replaces, at any moment.

A signature that was begun is right or refused; and so is the next one.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import TypeAlias

import pytest

from kagent.private.verify import verify
from kagent.protocol.messages import Failure, Message, SignResponse
from kagent.protocol.publickey import PublicKey
from tests.hostile.asking import PAIRS, Client, Pair, sign
from tests.hostile.conftest import settle
from tests.hostile.people import Login, attack, turn
from tests.hostile.stepping import Stop, stepping
from tests.support.programs import Agent

pytestmark = pytest.mark.skipif("rsa" not in PAIRS, reason="this kernel takes no private keys")

DEEDS = ("revoke", "expire", "invalidate", "unlink", "chmod", "replace")
DATA = b"to be signed"
EACH = 4  # of the moments, other ones in each run: in a machine of its own one takes seconds

Spoil: TypeAlias = Callable[[], None]


@pytest.fixture
def client(kagent: Agent) -> Iterator[Client]:
    settle(kagent)
    with Client(kagent.socket) as connected:
        yield connected


def signed(pair: Pair, answer: Message | None) -> bool:
    """Whether it is a signature; one that is wrong is a fault, and so is no answer."""
    if isinstance(answer, Failure):
        return False
    assert isinstance(answer, SignResponse), answer
    verify(PublicKey.parse(pair.blob), answer.signature, DATA)
    return True


def ask_and_spoil(agent: Agent, client: Client, pair: Pair, moment: int, spoil: Spoil) -> bool:
    """Ask for a signature, and spoil its key at that one of the stops; False if there are fewer."""
    stops = 0

    def at(stop: Stop) -> bool:
        nonlocal stops
        stops += 1
        if stops == moment:
            spoil()
        return False

    with stepping(agent.keeper) as stepper:
        client.send(sign(pair, DATA))
        stepper.until(lambda: select.select([client.stream], [], [], 0)[0], at)
    return stops >= moment


@pytest.mark.parametrize("deed", DEEDS)
def test_before_and_in_the_middle_of_a_signature(kagent: Agent, client: Client, deed: str) -> None:
    keeper, answers = kagent.keeper, []
    with attack(kagent.person, Login.SAME, "spoil") as attacker:

        def spoil() -> None:
            assert int(turn(attacker, deed)) == 1

        for moment in chain([0], count(1 + int(time.time()) % EACH, EACH)):
            pair = Pair.rsa()
            assert client.add(pair)
            if moment:
                done = ask_and_spoil(kagent, client, pair, moment, spoil)
            else:
                spoil()
                client.send(sign(pair, DATA))
                done = True
            answers.append(signed(pair, client.answer()))
            # Loaded again it signs, whatever has become of the other.
            assert client.add(pair)
            assert signed(pair, client.ask(sign(pair, DATA)))
            assert client.remove_all()
            assert not signed(pair, client.ask(sign(pair, DATA)))
            if not done:
                break
    print(deed, answers)
    assert kagent.keeper == keeper
    assert len(answers) > 3
    assert answers[-1], "nothing was done to it"
    assert not answers[0], "it was gone before"
