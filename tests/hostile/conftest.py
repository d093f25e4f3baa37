"""Fixtures of the attackers' lane: who is attacked, and who attacks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.hostile.asking import Client
from tests.hostile.people import CHECKOUT, Login, begin_login, forget, somebody
from tests.kernel.conftest import _lock, _turn  # noqa: F401, who is alone
from tests.support.programs import SECONDS, Agent, Person, agent, wait_until

# kagent, but for the look whether a debugger is attached: the tests' stepper is.
UNTRACED = """
from kagent.confine import process
from kagent.cli.agent import main
process.tracer = lambda: 0
raise SystemExit(main())
"""

Starting = Callable[..., AbstractContextManager[Agent]]


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.getuid() != 0:
        pytest.skip("only root may be several users")


@pytest.fixture
def person(folder: Path) -> Iterator[Person]:
    """Who is attacked: an ordinary user at a login, as no other test has."""
    victim = somebody("victim", folder)
    begin_login(victim)
    yield victim
    forget(victim)


@pytest.fixture(params=list(Login))
def login(request: pytest.FixtureRequest) -> Login:
    """Where the attacker is, who is the same user."""
    found: Login = request.param
    return found


@pytest.fixture
def command(starting: Starting, person: Person) -> tuple[Path, tuple[str | Path, ...]]:
    """The agent's socket and command line, for who starts it in another way."""
    path = person.home / "agent.sock"
    if starting is agent:
        return path, (sys.executable, "-c", UNTRACED, "-D", "-a", path)
    return path, (sys.executable, "-m", "tests.hostile.careless", path)


@contextmanager
def careless(person: Person, *_: str, env: dict[str, str] | None = None) -> Iterator[Agent]:
    """The stand-in, started as `support.programs.agent` starts kagent."""
    path, log = person.home / "careless.sock", person.file("careless.log", "")
    environment = {"PYTHONPATH": str(CHECKOUT), **(env or {})}
    command = (sys.executable, "-m", "tests.hostile.careless", path)
    with (
        log.open("a") as output,
        person.start(*command, env=environment, stderr=output) as process,
    ):
        try:
            wait_until(lambda: path.exists() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            running = Agent(person, process, path, log)
            wait_until(lambda: running.connect().close() is None)
            yield running
        finally:
            process.kill()
            process.wait(SECONDS)


@pytest.fixture(params=["kagent", "careless"])
def starting(request: pytest.FixtureRequest) -> Starting:
    """How the agent is started that is attacked: kagent, or the stand-in, which must fall."""
    return agent if request.param == "kagent" else careless


@pytest.fixture
def falls(starting: Starting) -> bool:
    """Whether the attack must succeed: it is the control."""
    return starting is careless


@pytest.fixture
def attacked(person: Person, starting: Starting) -> Iterator[Agent]:
    """That agent, at a login of its own."""
    with starting(person) as running:
        settle(running)
        yield running


def settle(running: Agent) -> None:
    """Wait until its front answers: a keeper that starts refuses to be looked at."""
    with Client(running.socket) as connected:
        connected.remove_all()


@pytest.fixture
def client(attacked: Agent) -> Iterator[Client]:
    """A connection to it."""
    with Client(attacked.socket) as connected:
        yield connected
