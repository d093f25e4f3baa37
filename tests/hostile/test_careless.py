"""The stand-in keeps to the rules while nobody attacks it: what it falls to is the attack."""

from __future__ import annotations

import time

import pytest

from kagent.protocol.constraints import Confirm, Lifetime
from tests.hostile.asking import PAIRS, Client
from tests.hostile.conftest import careless
from tests.support.programs import Person


@pytest.mark.parametrize("kind", PAIRS)
def test_it_is_an_agent(person: Person, kind: str) -> None:
    free, asked, short = (PAIRS[kind]() for _ in range(3))
    with careless(person) as running, Client(running.socket) as client:
        assert client.add(free)
        assert client.add(asked, Confirm())
        assert client.add(short, Lifetime(1))
        assert client.signs(free)
        assert client.lists(asked)
        assert not client.signs(asked)
        assert client.lock()
        assert not client.signs(free)
        assert not client.unlock(b"another")
        assert client.unlock()
        assert client.signs(free)
        time.sleep(2)
        assert not client.lists(short)
        assert not client.signs(short)
        assert client.remove(free)
        assert not client.signs(free)
        assert client.remove_all()
        assert not client.lists(asked)
