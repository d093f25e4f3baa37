"""A whole login: ssh, a server on this machine, and the agent between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from tests.support.programs import PATH, Agent, sshd

from .figures import Goal, Row
from .running import Bench, NotHere, milliseconds
from .signatures import SEALED


def login(name: str, bench: Bench) -> Iterator[Row]:
    """`ssh host true`."""
    if not shutil.which("sshd", path=PATH):
        raise NotHere("sshd is missing")
    key = SEALED["ed25519"].key(bench.person)
    authorized = key.with_name(f"{key.name}.pub").read_text()
    with (
        bench.holding("kagent", key, options=("--custody=sealed",)) as kagent,
        bench.holding("ssh-agent", key) as openssh,
        sshd(bench.person, bench.person.home / "sshd", authorized) as server,
    ):
        words = [*server.ssh(bench.person), "true"]
        told = kagent.run(*words, check=False)
        if told.returncode:
            why = (told.stderr or server.log.read_text()).strip().splitlines()[-1]
            raise NotHere(f"sshd lets {bench.person.name} not in: {why}")

        def once(agent: Agent) -> float:
            return milliseconds(lambda: agent.run(*words))

        yield bench.pair(
            name,
            "ssh host true",
            "ms",
            ("kagent", lambda: once(kagent)),
            ("ssh-agent", lambda: once(openssh)),
            Goal(1.02),
            times=4,
        )
