"""A load that fails changes nothing; and what was removed meanwhile isn't brought back by it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from kagent.protocol.constraints import Constraint, Lifetime, RequireCustody
from kagent.protocol.messages import AddIdConstrained
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.conftest import settle
from tests.hostile.test_load_workers import LIE, LOADED, lie
from tests.support.injection import python_in
from tests.support.programs import Agent, Person, agent, wait_until

kernel_signs = pytest.mark.skipif("rsa" not in PAIRS, reason="this kernel takes no private keys")

# In the front: a step of a load fails, for whatever reason.
FAILING = """
from kagent.custody.store import Store
from kagent.keyctl import QuotaExceeded
def fail(store, *arguments, **named):
    raise QuotaExceeded(122, "no room, says the test")
Store.{step} = fail
"""
# Or it takes its time.  Meanwhile the keeper is told to remove all, which this front never hears:
# as if it were killed before.
SLOW = """
import time
from kagent import log
from kagent.custody.store import Store, StillThere
from kagent.front.holding import Holding
from kagent.front.requests import Requests
async def nothing(requests, **named):
    pass
Requests.remove_all = nothing
before = {step}
def slow(*arguments, **named):
    log.info("a slow step")
    time.sleep(2)
    {end}
{step} = slow
"""


@pytest.fixture
def kagent(person: Person) -> Iterator[Agent]:
    with agent(person) as running:
        settle(running)
        yield running


def stays(kagent: Agent, pair: Pair) -> None:
    """It signs on, and comes to its end."""
    listed = kagent.run("ssh-add", "-l").stdout
    time.sleep(1.5)
    with Client(kagent.socket) as client:
        assert client.signs(pair)
        assert kagent.run("ssh-add", "-l").stdout == listed
        wait_until(lambda: not client.signs(pair))
        assert not client.lists(pair)
    wait_until(lambda: not kagent.signers)


@pytest.mark.parametrize("kind", PAIRS)
def test_with_another_lifetime(kagent: Agent, kind: str) -> None:
    pair = PAIRS[kind]()
    with Client(kagent.socket) as client:
        assert client.add(pair, Lifetime(10))
        python_in(kagent.front, FAILING.format(step="settle"))
        assert not client.add(pair, Lifetime(1))
    stays(kagent, pair)


def test_with_another_custody(kagent: Agent) -> None:
    """Its load worker says that it is a token's: where the kernel doesn't sign, no other can be."""
    pair = Pair.new()
    with Client(kagent.socket) as client:
        assert client.add(pair, Lifetime(10))
        python_in(kagent.front, FAILING.format(step="settle"))
    answer = LOADED.format(blob=pair.blob, custody="device", more="")
    lie(kagent, LIE.format(brought=b"something", answer=answer, left="device"))
    stays(kagent, pair)


@kernel_signs
@pytest.mark.parametrize(
    ("first", "then", "step"),
    [
        ("sealed", (Lifetime(600),), "settle"),
        ("sealed", (), "_show"),
        ("kernel", (RequireCustody("sealed"),), "settle"),
        ("kernel", (), "_show"),
        ("kernel", (), "make_anchor"),
    ],
)
def test_of_a_key_that_the_kernel_could_sign_with(
    kagent: Agent, first: str, then: tuple[Constraint, ...], step: str
) -> None:
    """And where it is shown to others before that fails, nobody has got it."""
    pair = Pair.rsa()
    with Client(kagent.socket) as client:
        assert client.add(pair, Lifetime(10), RequireCustody(first))
        code = FAILING.format(step=step)
        if step == "make_anchor":
            code = code.replace("Store", "Rings").replace("custody.store", "custody.rings")
        python_in(kagent.front, code)
        assert not client.add(pair, *then)
    assert "asymmetric" not in kagent.run("keyctl", "show", "@s").stdout
    stays(kagent, pair)


@pytest.mark.parametrize(
    ("step", "end"),
    [
        ("Holding.check", "return before(*arguments, **named)"),
        ("Store.settle", 'raise StillThere("says the test")'),
    ],
)
@pytest.mark.parametrize("held", [True, False])
def test_all_is_removed_meanwhile(kagent: Agent, held: bool, step: str, end: str) -> None:
    pair = Pair.new()
    with Client(kagent.socket) as client:
        if held:
            assert client.add(pair, Lifetime(600))
        python_in(kagent.front, SLOW.format(step=step, end=end))
        client.send(AddIdConstrained(pair.private, "a key", (Lifetime(600),)))
        wait_until(lambda: "a slow step" in kagent.logged())
        os.kill(kagent.keeper, signal.SIGUSR1)
        client.answer()
        assert "all keys were removed, as SIGUSR1 asks" in kagent.logged()
        assert not client.lists(pair)
    wait_until(lambda: not kagent.signers)
