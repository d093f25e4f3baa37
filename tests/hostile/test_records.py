"""What others write into keyrings that they can write to takes no constraint away."""

from __future__ import annotations

import base64
import os
import signal
import time

import pytest

from kagent.custody.identity import Custody, description_of
from kagent.protocol.constraints import Confirm
from tests.hostile.asking import PAIRS, Client
from tests.hostile.conftest import Starting
from tests.hostile.people import Login, attack, turn
from tests.support.programs import Agent, Person

# Who can write to where the agent's keys are.
PLACES = {"session": Login.SAME, "user": Login.ANOTHER}
MOMENTS = ("before it is loaded", "before the lock", "while locked")


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("place", PLACES)
def test_forged_records(
    person: Person, starting: Starting, falls: bool, kind: str, place: str
) -> None:
    """By who locks and unlocks, with a passphrase of their own."""
    signed = []
    with (
        starting(person, "kagent", f"--keyring={place}") as attacked,
        attack(person, PLACES[place], "plant") as attacker,
        Client(attacked.socket) as client,
    ):
        for custody in (Custody.SEALED, Custody.KERNEL):
            for moment in MOMENTS:
                pair = PAIRS[kind]()
                forged = f"{custody} {base64.b64encode(pair.blob).decode()}"

                def plant(when: str, moment: str = moment, forged: str = forged) -> None:
                    if when == moment:
                        assert int(turn(attacker, forged)) > 0

                plant("before it is loaded")
                assert client.add(pair, Confirm())
                assert not client.signs(pair)
                plant("before the lock")
                assert client.lock()
                plant("while locked")
                assert client.unlock()
                if moment == "while locked":
                    assert client.lock()
                    assert client.unlock()
                if client.signs(pair):
                    signed.append((custody, moment))
                turn(attacker, "clear")

    assert bool(signed) == falls, signed


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("how", ["-D", "a signal"])
def test_what_can_not_be_read_stops_no_removal(
    attacked: Agent, client: Client, falls: bool, kind: str, how: str
) -> None:
    """Nor a lock: it is answered, and all that can be withdrawn is."""
    if how == "a signal" and falls:
        pytest.skip("the stand-in doesn't know it")
    pairs = [PAIRS[kind]() for _ in range(3)]
    assert all([client.add(pair) for pair in pairs])
    with attack(attacked.person, Login.SAME, "litter") as attacker:
        assert int(turn(attacker, description_of(pairs[1].blob))) > 10
        time.sleep(1.1)  # until some have expired
        locked = client.lock()
        assert not any(client.signs(pair) for pair in pairs)
        assert client.unlock()
        if how == "-D":
            removed = client.remove_all()
        else:
            os.kill(attacked.keeper, signal.SIGUSR1)
            time.sleep(0.5)
            removed = True
        left = any(client.signs(pair) or client.lists(pair) for pair in pairs)

    assert (locked, removed, left) == (not falls, not falls, falls)
    assert attacked.process.poll() is None


@pytest.mark.parametrize("kind", PAIRS)
def test_litter_keeps_no_key_out(kagent: Agent, kind: str) -> None:
    """Not even where it lies in the place of that key's own record."""
    pair = PAIRS[kind]()
    with (
        attack(kagent.person, Login.SAME, "litter") as attacker,
        Client(kagent.socket) as client,
    ):
        assert int(turn(attacker, description_of(pair.blob))) > 10
        assert client.add(pair)
        assert client.signs(pair)
        assert client.add(pair, Confirm())
        assert not client.signs(pair)
