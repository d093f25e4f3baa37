"""What becomes of requests of any kind, with kagent and with ssh-agent: contrib/differential."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings

from tests.differential import play
from tests.differential.play import Players
from tests.differential.sequences import Step, sequences
from tests.support.manual import rendered
from tests.support.programs import Person


@pytest.fixture
def players(person: Person) -> Iterator[Players]:
    with ExitStack() as stack:
        yield Players.of(person, stack)


@settings(max_examples=30, suppress_health_check=[*HealthCheck])
@given(sequences())
def test_sequences(players: Players, steps: list[Step]) -> None:
    difference = players.play(steps)
    assert difference is None, difference


def test_what_is_meant_is_written() -> None:
    told = rendered("kagent.1").partition("# DIFFERENCES FROM SSH-AGENT")[2]
    section = " ".join(told.partition("\n# ")[0].split())
    for written in (*(one.written for one in play.MEANT), *play.OTHERS_MEANT):
        assert written in section
