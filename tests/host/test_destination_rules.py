"""Where a key may be used: what the newest ssh-agent does, and kagent beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.destinations.agents import AtSocket, Rules
from tests.destinations.scenarios import Step, compare, scenarios
from tests.destinations.scripts import SCRIPTS, Script, play
from tests.machine.openssh import programs
from tests.support.programs import Agent, Person, agent

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def theirs(person: Person) -> Iterator[Agent]:
    with agent(person, programs() / "ssh-agent") as running:
        yield running


def play_all(agent: Agent, scripts: dict[str, Script]) -> None:
    for name, script in scripts.items():
        print(name)
        with AtSocket(agent.connect) as connections:
            play(connections, script)


def test_what_is_expected_is_what_ssh_agent_does(theirs: Agent) -> None:
    play_all(theirs, SCRIPTS)


def test_kagent_does_the_same(kagent: Agent) -> None:
    scripts = dict(SCRIPTS)
    del scripts["as many hops as may be"]  # more than a key of the kernel can hold
    play_all(kagent, scripts)


@settings(QUICK, max_examples=150)
@given(steps=scenarios())
def test_rules_in_scenarios(theirs: Agent, steps: list[Step]) -> None:
    with AtSocket(theirs.connect) as stock:
        compare(Rules(), stock, steps)


# Without holding a key again: under a destination constraint kagent keeps it as it is for all who
# come from afar, also where ssh-agent lets it be seen and so replaced.
@settings(QUICK, max_examples=30)
@given(steps=scenarios(again=False))
def test_kagent_in_scenarios(kagent: Agent, theirs: Agent, steps: list[Step]) -> None:
    with AtSocket(theirs.connect) as stock, AtSocket(kagent.connect) as ours:
        compare(ours, stock, steps)
