"""kagentctl prove, as root."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.programs import BIN, PATH, SECONDS, Agent


def prove(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it with these arguments."""
    return subprocess.run(
        [BIN / "kagentctl", "prove", *words],
        env={"PATH": PATH, "LANG": "C.UTF-8", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5 * SECONDS,
    )


def has_nothing_of(kagent: Agent, *keys: Path) -> None:
    """Fails the test if something of the keys is in a process of kagent, or if it can't be told."""
    done = prove("--json", *keys, SSH_AUTH_SOCK=str(kagent.socket))
    assert done.returncode == 0, done.stdout[:3000] + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["verdict"] == "nothing found"
    assert [key["listed"] for key in told["keys"]] == [True] * len(keys)
    looked = {one["pid"] for one in told["agent"]}
    assert looked >= {kagent.process.pid, kagent.keeper, kagent.front}
    assert all(one["read"] > 1 << 20 for one in told["agent"])
