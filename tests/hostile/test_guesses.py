"""Guessing the passphrase of a lock is as slow as ssh-agent makes it, whatever is killed."""

from __future__ import annotations

import time

from tests.hostile.asking import Client
from tests.hostile.people import Login, attack, finish
from tests.support.programs import Agent

# ssh-agent would make who has guessed wrongly 30 times wait for 46 seconds in all, and after 15
# seconds would have looked at 17 guesses.
RIGHT = 30
SECONDS = 15.0


def test_no_more_guesses_by_killing_the_front(attacked: Agent, client: Client, falls: bool) -> None:
    assert client.lock(str(RIGHT).encode())
    keeper = attacked.keeper
    with attack(
        attacked.person, Login.ANOTHER, "guess", attacked.socket, keeper, RIGHT
    ) as guessing:
        deadline = time.monotonic() + SECONDS
        while guessing.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        told = finish(guessing)
    assert bool(told.got) == falls, told
