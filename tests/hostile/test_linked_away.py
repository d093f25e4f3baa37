"""Keys that others of the login may use, and link away, sign for as long as they should."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kagent.protocol.constraints import Confirm
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.people import Login, attack, turn
from tests.support.programs import Agent

pytestmark = pytest.mark.skipif("rsa" not in PAIRS, reason="this kernel takes no private keys")

# Permissions that a key is given before the agent would end it, and whether it is hidden.
TRICKS = (
    "0 stays",
    "0 hide",
    "37370000 hide",  # no search for the possessor, who so can't invalidate
    "37370000 stays",
    "1f1f0000 hide",  # no setattr, but for nobody
    "01010000 stays",
    "003f0000 hide",
    "003f0000 stays",
    "3f000000 stays",
)

ENDS: dict[str, Callable[[Client, Pair], bool]] = {
    "-D": lambda client, pair: client.remove_all(),
    "-d": lambda client, pair: client.remove(pair),
    "loaded with -c": lambda client, pair: client.add(pair, Confirm()),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_linked_away_signs_no_more(
    attacked: Agent, client: Client, falls: bool, end: str
) -> None:
    """After it was removed, or is to be asked about."""
    signed = []
    with attack(attacked.person, Login.SAME, "take_away") as attacker:
        for trick in TRICKS:
            pair = Pair.rsa()
            assert client.add(pair)
            assert int(turn(attacker, trick)), "the control: it can be taken"
            ENDS[end](client, pair)
            if int(turn(attacker, "sign")):
                signed.append(trick)
            if client.signs(pair):
                signed.append(f"{trick}, by the agent")
    assert bool(signed) == falls, signed
