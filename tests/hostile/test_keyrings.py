"""No keyring of the agent's can be got into, at no moment, and so no key be read."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kagent.keyctl import session_keyring
from kagent.protocol.constraints import Confirm, Lifetime
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.people import CHECKOUT, Login, attack, turn
from tests.hostile.stepping import Stop, stepping
from tests.support.programs import Agent, Person, children_of, wait_until


def holds(got: list[str], pair: Pair) -> bool:
    """Whether that private key is in what was read."""
    read = [base64.b64decode(one.split()[-1]) for one in got if one.startswith("read ")]
    return any(pair.secret in payload for payload in read)


class Turns:
    """An attacker that tries everything at each moment of what the agent does."""

    def __init__(self, keeper: int, attacker: subprocess.Popen[str]) -> None:
        self._keeper = keeper
        self._attacker = attacker
        self.tries = 0
        self.stops = 0
        self.got: list[str] = []
        self.failures: list[Exception] = []  # of the action

    def during(self, action: Callable[[], object]) -> None:
        """Have it act, and let the attacker try at each of its key system calls."""
        with stepping(self._keeper) as stepper:
            acting = threading.Thread(target=self._act, args=(action,))
            acting.start()
            self.stops += stepper.until(lambda: not acting.is_alive(), self._at)

    def _act(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (AssertionError, OSError) as error:
            self.failures.append(error)

    def _at(self, stop: Stop) -> bool:
        tries, *got = turn(self._attacker, str(stop.serial or "")).split("\t")
        self.tries = int(tries)
        self.got += got
        return False


def front_ends(agent: Agent) -> None:
    """The next one enters the keyrings anew."""
    keeper = agent.keeper
    front = children_of(keeper)[0]
    os.kill(front, signal.SIGKILL)
    wait_until(lambda: front not in children_of(keeper))
    with Client(agent.socket) as client:
        client.remove_all()


def test_at_each_moment_of_the_start(
    person: Person, command: tuple[Path, tuple[str | Path, ...]], login: Login, falls: bool
) -> None:
    """From the first instruction to the first key."""
    path, words = command
    pair = Pair.new()

    def act() -> None:
        os.kill(process.pid, signal.SIGCONT)
        wait_until(path.exists)
        with Client(path) as client:
            assert client.add(pair)

    stopped = ("sh", "-c", 'kill -STOP $$; exec "$0" "$@"', *words)
    with (
        person.start(*stopped, env={"PYTHONPATH": str(CHECKOUT)}) as process,
        attack(person, login, "everywhere", session_keyring().serial) as attacker,
    ):
        try:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            turns = Turns(process.pid, attacker)
            turns.during(act)
        finally:
            process.kill()
    print(turns.stops, turns.tries, *turns.got, sep="\n")
    assert turns.stops > 10
    assert bool(turns.got) == falls
    # In the stand-in there may be no room left for a key, with all that the attacker makes.
    assert falls or not holds(turns.got, pair)
    assert falls or not turns.failures


@pytest.mark.parametrize("kind", PAIRS)
def test_at_each_moment(attacked: Agent, login: Login, falls: bool, kind: str) -> None:
    """Of loads, signatures, locks, removals, and of the front's start."""
    pair, other = PAIRS[kind](), PAIRS[kind]()

    def act() -> None:
        with Client(attacked.socket) as client:
            assert client.add(pair, Lifetime(1000))
            assert client.lists(pair)
            client.signs(pair)  # or not: stopped so often, a worker's time can be over
            assert client.add(other, Confirm())
            assert not client.signs(other)
            assert client.lock()
            assert client.unlock()
            assert client.add(pair, Lifetime(1000))
            assert client.remove(pair)
        front_ends(attacked)

    # What every program of this user can see.
    session = session_keyring().serial
    with attack(attacked.person, login, "everywhere", session) as attacker:
        turns = Turns(attacked.keeper, attacker)
        turns.during(act)
    print(turns.stops, turns.tries, *turns.got, sep="\n")
    assert turns.stops > 20
    assert bool(turns.got) == falls
    assert falls or not turns.failures
    # What the kernel signs with can't be read, by whomever it can be used.
    assert holds(turns.got, pair) == (falls and kind == "ed25519")
