"""A user's key quota, used up by another program when a key is loaded, leaves nothing by halves."""

from __future__ import annotations

import pytest

from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import RequestIdentities
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.exposed import put_a_key_where_others_reach_it, reached
from tests.hostile.people import Login, attack, turn
from tests.support.programs import Agent


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("what", ["keys", "bytes"])
def test_loads_with_little_left(attacked: Agent, falls: bool, kind: str, what: str) -> None:
    """What was refused isn't there, what was taken is, and a constraint holds in any case."""
    wrong = []
    with attack(attacked.person, Login.ANOTHER, "hoard", what) as hoarder:
        for left in range(1, 10):
            pair, again = PAIRS[kind](), PAIRS[kind]()
            assert turn(hoarder, "0") == "done"
            assert _add(attacked, again)
            assert turn(hoarder, str(left)) == "done"
            taken, retaken = _add(attacked, pair), _add(attacked, again)
            assert turn(hoarder, "0") == "done"
            with Client(attacked.socket) as client:
                if taken != client.lists(pair) or (retaken and not client.lists(again)):
                    wrong.append(left)
                assert not client.signs(pair)
                assert not client.signs(again)
                client.remove_all()
    assert bool(wrong) == falls, wrong


def _add(agent: Agent, pair: Pair) -> bool:
    # Where nothing has read the key to its end, the connection ends too.
    with Client(agent.socket) as client:
        return client.add(pair, Confirm())


# Around what a lock takes, here and in the stand-in: less, and it is refused.
ROOM = (*range(14, 30, 2), *range(100, 124, 2))


@pytest.mark.parametrize("known", [True, False])
def test_a_lock_with_little_left(attacked: Agent, falls: bool, known: bool) -> None:
    """What is locked is out of others' reach, also what the agent hasn't looked at before."""
    left = []
    with attack(attacked.person, Login.ANOTHER, "hoard", "single") as hoarder:
        for room in ROOM:
            with Client(attacked.socket) as client:
                put_a_key_where_others_reach_it(attacked.person)
                assert not known or client.ask(RequestIdentities())
                assert reached()
                assert turn(hoarder, str(room)) == "done"
                client.lock()
                there = reached()
                assert turn(hoarder, "0") == "done"
                if client.unlock() and there:
                    left.append(room)
                assert client.remove_all()
    assert bool(left) == falls, left
