"""contrib/bench: what it tells of a run, and what it makes of figures.  Nothing is timed here."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "contrib/bench"


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What a short run has told."""
    done = bench("--rounds=1", "--rows=start", "--rows=com*", "--rows=tpm", "--json")
    assert done.returncode == 0, done.stderr
    taken: dict[str, Any] = json.loads(done.stdout)
    return taken


def test_figures_are_sound(told: dict[str, Any]) -> None:
    assert [row["benchmark"] for row in told["rows"]] == ["start", "command"]
    for row in told["rows"]:
        pairs = list(zip(row["this"]["values"], row["that"]["values"], strict=True))
        assert len(pairs) == 2  # twice in each round
        ratio = row["ratio"]
        lowest, highest = min(a / b for a, b in pairs), max(a / b for a, b in pairs)
        assert lowest <= ratio["lower"] <= ratio["median"] <= ratio["upper"] <= highest
        assert row["goal"]["verdict"] in ("met", "noise", "missed")
    assert told["machine"]["cores"] > 0
    assert "tpm" in told["left_out"] or len(told["rows"]) > 2


@pytest.mark.parametrize(
    ("ratios", "verdict", "code"),
    [([2, 2.9, 2.9, 9], "met", 0), ([2, 2.9, 4, 4.5], "noise", 0), ([3.5, 4, 4, 9], "missed", 1)],
)
def test_the_check_fails_beyond_the_noise(
    told: dict[str, Any], tmp_path: Path, ratios: list[float], verdict: str, code: int
) -> None:
    """For an agent's start, which may take three times that of ssh-agent."""
    changed = copy.deepcopy(told)
    changed["rows"] = [row for row in told["rows"] if row["benchmark"] == "start"]
    [row] = changed["rows"]
    row["this"]["values"], row["that"]["values"] = ratios, [1] * len(ratios)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(changed))
    done = bench("--from", file, "--check", "--json")
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["rows"][0]["goal"]["verdict"] == verdict
    assert bench("--from", file).returncode == 0


def test_chart(told: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(told)
    row = told["rows"][0]
    changed["rows"] = [row | {"benchmark": "clients", "clients": many} for many in (1, 2, 64)]
    file, drawn = tmp_path / "run.json", tmp_path / "chart.svg"
    file.write_text(json.dumps(changed))
    assert bench("--from", file, "--chart", drawn).returncode == 0
    texts = [text.text for text in ET.parse(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert {"1", "2", "64", row["this"]["name"], "signatures per second"} <= set(texts)
    assert any(told["machine"]["linux"] in str(text) for text in texts)
