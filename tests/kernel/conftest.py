"""Tests that change the machine for everybody run alone, the others two at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

_LOCK = Path("/tmp/kagent-tests.lock")


@pytest.fixture(scope="session")
def _lock() -> Iterator[TextIO]:
    # Opened once and before any login: an open file holds its opener's credentials, and with them
    # the session keyring of that moment.
    with _LOCK.open("a") as lock:
        yield lock


@pytest.fixture(autouse=True)
def _turn(_lock: TextIO, request: pytest.FixtureRequest) -> Iterator[None]:
    alone = request.node.get_closest_marker("alone") is not None
    fcntl.flock(_lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    yield
    fcntl.flock(_lock, fcntl.LOCK_UN)
