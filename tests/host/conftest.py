"""kagent-add and the newest ssh-add, each with a stock ssh-agent: same output, same exit code.

Where they are to differ the test says so, and looks at kagent-add alone.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.machine.openssh import programs
from tests.support.programs import Agent, Person, Same, agent

# ssh-add -v puts the name of the C function in front of some lines; that isn't copied.
_FUNCTION = re.compile(r"^(debug\d: )\w+: ", re.MULTILINE)


@pytest.fixture
def agents(person: Person) -> Iterator[tuple[Agent, Agent]]:
    with agent(person, "ssh-agent") as one, agent(person, "ssh-agent") as other:
        yield one, other


@pytest.fixture
def same(agents: tuple[Agent, Agent]) -> Same:
    """Runs both programs with the same arguments; they must say and end the same."""

    def run(*words: str, **options: str) -> subprocess.CompletedProcess[str]:
        theirs, ours = (
            one.run(program, *words, check=False, **options)
            for one, program in zip(agents, (programs() / "ssh-add", "kagent-add"), strict=True)
        )
        theirs.stderr = _FUNCTION.sub(r"\1", theirs.stderr)
        assert (ours.returncode, ours.stdout, ours.stderr) == (
            theirs.returncode,
            theirs.stdout,
            theirs.stderr,
        )
        return ours

    return run


@pytest.fixture
def ours(agents: tuple[Agent, Agent]) -> Same:
    """Runs kagent-add alone."""

    def run(*words: str, **options: str) -> subprocess.CompletedProcess[str]:
        return agents[1].run("kagent-add", *words, check=False, **options)

    return run
