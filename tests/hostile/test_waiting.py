"""What has changed while somebody was waited for counts: nothing is signed on an old permission."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from kagent.protocol.constraints import Confirm, Constraint, Lifetime
from kagent.protocol.messages import SignResponse
from tests.hostile.asking import PAIRS, Client, Pair, sign
from tests.hostile.conftest import Starting, settle
from tests.support.programs import Agent, Person, agent, wait_until

# Says yes, but not before the test wants it to.
ASKPASS = """\
#!/bin/sh
touch {home}/asked
while ! [ -e {home}/answer ]; do sleep 0.02; done
exit 0
"""


class User:
    """Who is asked: takes their time, and says yes."""

    def __init__(self, person: Person) -> None:
        self._asked, self._answer = person.home / "asked", person.home / "answer"
        self.program = person.file("askpass", ASKPASS.format(home=person.home), mode=0o700)

    def wait(self) -> None:
        """Until the question has come."""
        wait_until(self._asked.exists)

    def say_yes(self) -> None:
        self._answer.touch()


@pytest.fixture
def user(person: Person) -> User:
    return User(person)


@pytest.fixture
def attacked(person: Person, user: User, starting: Starting) -> Iterator[Agent]:
    """An agent that asks that user."""
    asking = {"SSH_ASKPASS": str(user.program), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":9"}
    with starting(person, env=asking) as running:
        settle(running)
        yield running


def nothing(client: Client, pair: Pair) -> None:
    pass


# Seconds, in which a busy machine gets as far as to ask.
SPAN = 5

MEANWHILE: dict[str, Callable[[Client, Pair], object]] = {
    "locked": lambda other, pair: other.lock(),
    "removed": lambda other, pair: other.remove(pair),
    "all removed": lambda other, pair: other.remove_all(),
    "loaded again": lambda other, pair: other.add(pair, Confirm(), Lifetime(1000)),
    "expired": lambda other, pair: time.sleep(SPAN + 1),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("what", MEANWHILE)
def test_before_the_answer(
    attacked: Agent, client: Client, user: User, falls: bool, what: str, kind: str
) -> None:
    pair = PAIRS[kind]()
    constraints: list[Constraint] = [Confirm()]
    if what == "expired":
        constraints.append(Lifetime(SPAN))
    assert client.add(pair, *constraints)
    client.send(sign(pair))
    user.wait()
    with Client(attacked.socket) as other:
        MEANWHILE[what](other, pair)
    user.say_yes()
    assert isinstance(client.answer(), SignResponse) == falls


@pytest.mark.parametrize("locked", [True, False])
def test_a_sign_worker_that_is_stopped(person: Person, locked: bool) -> None:
    """It has the request when the agent is locked; without a lock, the control, it signs late."""
    pair = Pair.new()
    with agent(person) as running:
        settle(running)
        with Client(running.socket) as client, Client(running.socket) as other:
            assert client.add(pair)
            assert client.signs(pair)
            wait_until(lambda: running.signers)
            stopped = running.signers
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            client.send(sign(pair))
            time.sleep(0.2)
            if locked:
                assert other.lock()
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            answer = client.answer()
    assert isinstance(answer, SignResponse) != locked
