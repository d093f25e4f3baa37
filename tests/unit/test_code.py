"""The code's form: style and types.  Which room may import which is in test_rooms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    ["ruff check .", "ruff format --check .", "mypy"],
    ids=lambda command: command.split()[0],
)
def test_form(command: str) -> None:
    program, *words = command.split()
    told = subprocess.run([BIN / program, *words], cwd=CHECKOUT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
