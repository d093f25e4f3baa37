"""Fixtures of every lane: a session keyring and a person for each test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Workers do without this module, and who has imported theirs can't have all of it any more.
import cryptography.hazmat.primitives.serialization.ssh  # noqa: F401
import pytest
from hypothesis import settings

from kagent.keyctl import join_anonymous_session, syscalls

from .support.programs import Agent, Person, agent

# A shell that starts the tests in the background has them ignore SIGINT and SIGQUIT, nohup SIGHUP,
# and so would all that is started here.  What is caught here is the default there.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)


# How long an example takes says more of the machine than of the code.
settings.register_profile("kagent", deadline=None)
settings.load_profile("kagent")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """KAGENT_TEST_SHARE=0/2: the first of two machines that share a lane, every other test each."""
    if share := os.environ.get("KAGENT_TEST_SHARE"):
        first, step = map(int, share.split("/"))
        mine = items[first::step]
        config.hook.pytest_deselected(items=[item for item in items if item not in mine])
        items[:] = mine


def pytest_collection_finish(session: pytest.Session) -> None:
    """KAGENT_TEST_COLLECTED=FILE: for tests/run, which tests there are, and how they are marked."""
    if file := os.environ.get("KAGENT_TEST_COLLECTED"):
        lines = (
            f"{item.nodeid}\t{' '.join(mark.name for mark in item.iter_markers())}\n"
            for item in session.items
        )
        Path(file).write_text("".join(lines))


def _tester() -> str | None:
    """Whom root runs programs as: the booted machine has an ordinary user for each worker."""
    user = {"gw0": "alice", "gw1": "bob"}.get(os.environ.get("PYTEST_XDIST_WORKER", "gw0"))
    known = any(about.pw_name == user for about in pwd.getpwall())
    return user if known and os.getuid() == 0 else None


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, with a path short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="kagent-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def person(folder: Path) -> Person:
    """An ordinary user where there is one, at a login of their own."""
    someone = Person.named(_tester(), folder / "home")
    login = join_anonymous_session()
    if someone.uid != os.getuid():
        syscalls.chown(login.serial, someone.uid, someone.gid)
    return someone


@pytest.fixture
def kagent(person: Person) -> Iterator[Agent]:
    """A kagent of that person."""
    with agent(person) as running:
        yield running
