"""Faults that an agent meets: no key is lost that is to stay, and none signs that is to go.

Some of what contrib/faults does at each step, what it has found, and what comes over a whole
machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent import learned
from kagent.protocol.constraints import Lifetime
from tests.faults.injector import Step
from tests.faults.play import OPERATIONS, Broken, Plan, Stand, play, processes_of, steps_of
from tests.hostile.asking import PAIRS, Client, Pair
from tests.support.programs import Agent, Person

STEPS = 25  # of all, each time others

# An agent that takes a key away where it can't be loaded again, and one that tells that it has
# removed what it hasn't.
FORGETFUL = """
from kagent.front.holding import Holding
async def _go_back(self, identity, before):
    await self._workers.forget(identity.description)
Holding._go_back = _go_back
"""
LYING = """
from kagent.front import requests
requests.faults_of = lambda answer: []
"""


@contextmanager
def standing(person: Person, code: str = "") -> Iterator[Stand]:
    stand = Stand(person, person.changed_kagent(code) if code else None)
    try:
        yield stand
    finally:
        stand.stop()


def plans(stand: Stand, operation: str, at: Callable[[Step], bool], *faults: str) -> list[Plan]:
    """Those faults, or all, at the steps that `at` picks."""
    return [
        Plan(operation, fault, step)
        for step in steps_of(stand, operation)
        if at(step)
        for fault in step.faults
        if not faults or fault in faults
    ]


def test_at_some_steps(person: Person) -> None:
    """What fails here does so again with contrib/faults and the words of the plan."""
    with standing(person) as stand:
        every = [
            plan
            for operation in OPERATIONS
            for plan in plans(stand, operation, lambda step: step.role != "keeper")
        ]
        apart = len(every) // STEPS
        met = 0
        for plan in every[int(time.time()) % apart :: apart]:
            print(plan)
            met += play(stand, plan) is not None
        assert met > STEPS / 2


def test_in_the_keeper(person: Person) -> None:
    """And killed in the middle of a load it takes all with it."""
    with standing(person) as stand:
        every = plans(stand, "load-sealed", lambda step: step.role == "keeper")
        alive = [plan for plan in every if plan.fault != "kill"]
        for plan in alive[int(time.time()) % 8 :: 8]:
            print(plan)
            play(stand, plan)
        killed = [plan for plan in every if plan.fault == "kill"]
        assert play(stand, killed[len(killed) // 2])


@pytest.mark.parametrize(
    ("code", "operation"),
    [(FORGETFUL, "reload-sealed"), (LYING, "remove-sealed")],
    ids=["forgetful", "lying"],
)
def test_it_can_fail(person: Person, code: str, operation: str) -> None:
    """The control: an agent with a fault of its own, whose keeper doesn't hear what it is to do."""
    at = ("keeper", "recvmsg")
    with standing(person, code) as stand:
        there = plans(stand, operation, lambda step: step[:2] == at, "descriptors")
        with pytest.raises(Broken):
            _play_all(stand, there)


def _play_all(stand: Stand, there: list[Plan]) -> None:
    assert there
    for plan in there:
        print(plan)
        play(stand, plan)


@pytest.mark.parametrize(
    ("role", "call", "fault"),
    [("keeper", "recvmsg", "descriptors"), ("front", "epoll_ctl", "memory")],
)
def test_a_key_that_cannot_be_loaded_again_stays(
    person: Person, role: str, call: str, fault: str
) -> None:
    """Where the keeper can't hear what it is to do, or the front not what was done."""
    with standing(person) as stand:
        at = (role, call)
        _play_all(stand, plans(stand, "reload-sealed", lambda step: step[:2] == at, fault))


@pytest.mark.parametrize(
    ("operation", "role", "call", "fault"),
    [
        ("load-sealed", "front", "pipe2", "descriptors"),
        ("reload-sealed", "front", "pipe2", "descriptors"),
        ("reload-sealed", "keeper", "keyctl", "memory"),
    ],
)
def test_nothing_is_left_for_a_second(
    person: Person, operation: str, role: str, call: str, fault: str
) -> None:
    """Nor then is a load told to have failed whose key is held, nor a key lost."""
    at = (role, call)
    with standing(person) as stand:
        there = plans(stand, operation, lambda step: step[:2] == at, fault)
        _play_all(stand, [plan._replace(lasting=True) for plan in there])


def test_what_nobody_decides_about_goes(person: Person) -> None:
    """A key that was read, and that the keeper can't be told to hold: not even sixteen of them."""
    with standing(person) as stand:
        [_, keep, *_] = plans(stand, "load-sealed", lambda step: step.call == "sendmsg", "flight")
        for _ in range(17):
            assert play(stand, keep)


@pytest.mark.skipif("rsa" not in PAIRS, reason="this kernel takes no private keys")
@pytest.mark.parametrize("operation", ["lock", "remove-kernel"])
def test_a_key_that_cannot_be_looked_at_is_not_taken_for_gone(
    person: Person, operation: str
) -> None:
    """So no list lacks it, and nobody is told that it was removed, or is out of reach."""
    with standing(person) as stand:
        there = plans(stand, operation, lambda step: step[:2] == ("front", "keyctl"), "memory")
        apart = min(len(there), 18)
        _play_all(stand, there[int(time.time()) % apart :: apart])


def test_a_machine_is_suspended(kagent: Agent) -> None:
    """For longer than a key has: it is over at once, and all else is as before."""
    short, long = Pair.new(), Pair.new()
    with Client(kagent.socket) as client:
        assert client.add(short, Lifetime(3))
        assert client.add(long)
        assert client.signs(short)
        pids = processes_of(kagent.process.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert not client.signs(short)
        assert not client.lists(short)
        assert client.signs(long)
        assert client.lists(long)


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned of hosts stays, and what there is no room for isn't there by halves."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk], check=True)
    try:
        monkeypatch.setenv("XDG_STATE_HOME", str(disk))
        # A page for the file, and one that nobody has.
        logins = [
            learned.Learned(f"SHA256:{number:043}", f"SHA256:{0:043}", "2026-11-26")
            for number in range(1000)
        ]
        kept: list[learned.Learned] = []

        def fill() -> None:
            with learned.File(to_write=True) as file:
                for login in logins:
                    file.change(lambda lines: learned.with_login(lines, login))  # noqa: B023
                    kept.append(login)

        with pytest.raises(learned.Unusable, match="space"):
            fill()
        assert kept
        assert learned.read() == kept
        with learned.File(to_write=True) as file:
            again = kept[0]._replace(day="2026-11-27")
            file.change(lambda lines: learned.with_login(lines, again))
        assert learned.read() == [again, *kept[1:]]
    finally:
        subprocess.run(["umount", disk], check=True)
