"""A package without what it never uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kagent.confine.modules import import_without


@pytest.mark.parametrize(
    ("use", "real"),
    [
        ("def late(value: other.Type) -> other.Type: ...", False),
        ("made = other.Type()", True),
        ("class Own(other.Type): ...", True),
    ],
    ids=["named", "called", "derived"],
)
def test_an_absent_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, real: bool
) -> None:
    """It is there for a package that makes use of it."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("package", "other"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "other.py").write_text("class Type: ...\n")
    (tmp_path / "package.py").write_text(
        f"from __future__ import annotations\nimport other\nfrom other import Type\n{use}\n"
    )
    import_without("package", ["other"])
    assert isinstance(sys.modules["package"].Type, type) == real
    assert ("other" in sys.modules) == real


def test_the_front_has_no_more_of_trio_than_it_uses() -> None:
    lines = "import kagent.front.life, sys; print({'ssl', 'trio._subprocess'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_workers_have_no_more_of_cryptography_than_they_use() -> None:
    lines = "import kagent.workers.sign, sys; print({'bcrypt', 'inspect'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"
