"""Beside ssh-tpm-agent, whose keys are a TPM's: here a TPM made by swtpm, in software."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import PATH, SECONDS, wait_until

from .figures import Row
from .running import Bench, NotHere, WentWrong, one_client, sign_request
from .signatures import SEALED, Kind

_PROGRAMS = ("ssh-tpm-agent", "ssh-tpm-keygen", "swtpm")
_IN_SOFTWARE = {"SSH_TPM_AGENT_SWTPM": "1"}
_SIGNATURES = 10  # a TPM takes its time
# What both hold.
_KINDS = {"ecdsa": ("-t", "ecdsa"), "rsa-2048": ("-t", "rsa", "-b", "2048")}


def beside_tpm(name: str, bench: Bench) -> Iterator[Row]:
    """One client of kagent, and one of ssh-tpm-agent."""
    if missing := [program for program in _PROGRAMS if not shutil.which(program, path=PATH)]:
        raise NotHere(f"{', '.join(missing)} missing; Debian has no package of ssh-tpm-agent")
    for kind, options in _KINDS.items():
        yield _row(name, bench, SEALED[kind], options)


def _row(name: str, bench: Bench, kind: Kind, options: tuple[str, ...]) -> Row:
    ours = kind.key(bench.person)
    theirs = bench.person.home / f"tpm-{kind.name}" / "key"
    theirs.parent.mkdir()
    command = ["ssh-tpm-keygen", *options, "-N", "", "-f", str(theirs)]
    told = bench.person.run(*command, check=False, **_IN_SOFTWARE)
    if told.returncode:
        raise WentWrong(f"ssh-tpm-keygen: {told.stderr.strip()}")
    asked, asked_of_tpm = sign_request(ours), sign_request(theirs)
    with (
        bench.holding("kagent", ours, options=("--custody=sealed",)) as kagent,
        _tpm_agent(bench, theirs.parent) as path,
    ):
        return bench.pair(
            name,
            f"{kind.name}, one client",
            "ms",
            ("kagent", lambda: one_client(kagent.socket, asked, _SIGNATURES)),
            ("ssh-tpm-agent", lambda: one_client(path, asked_of_tpm, _SIGNATURES)),
        )


@contextmanager
def _tpm_agent(bench: Bench, keys: Path) -> Iterator[Path]:
    path = keys / "agent.sock"
    with bench.person.start(
        *("ssh-tpm-agent", "-l", path, "--key-dir", keys),
        env=_IN_SOFTWARE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: path.exists() or process.poll() is not None)
            yield path
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # its TPM is a process too
            process.wait(SECONDS)
