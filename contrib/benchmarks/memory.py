"""What an agent takes of the machine's memory: the proportional size of all its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.programs import Agent, wait_until

from .figures import Goal, Row, Series
from .running import Bench, NotHere, below, many_clients, name_of, sign_request
from .signatures import FEW, KERNEL, SEALED, check_kernel_signs
from .starts import listening, service

_SETTLED = 1.0  # seconds; a burst of signatures ends after a tenth of one
_TEN_MINUTES = 600.0
# When the last signature is so long ago, what waits for the next has ended; and what is counted
# here hasn't, if it is to end at all.
_LATER = _TEN_MINUTES + 15


def in_use(name: str, bench: Bench) -> Iterator[Row]:
    """With a sealed key held, soon after many signatures; and each part of it."""
    _check_permitted()
    key = SEALED["ed25519"].key(bench.person)
    frame = sign_request(key)
    with (
        bench.holding("kagent", key, options=("--custody=sealed",)) as kagent,
        bench.holding("ssh-agent", key) as openssh,
    ):
        ours, theirs = [], []
        for _ in range(bench.rounds):
            many_clients(kagent.socket, frame, FEW, 10)
            time.sleep(_SETTLED)
            ours.append(_parts(kagent))
            theirs.append(sum(_parts(openssh).values()))
    whole = Series("kagent", tuple(sum(parts.values()) for parts in ours))
    pair, goal = (whole, Series("ssh-agent", tuple(theirs))), Goal(25, of_value=True)
    yield Row(name, "memory, sealed keys held", "MB", *pair, goal)
    for part in ours[-1]:
        sizes = tuple(parts.get(part, 0.0) for parts in ours)
        yield Row(name, "  of it", "MB", Series(part, sizes))


def later(name: str, bench: Bench) -> Iterator[Row]:
    """Ten minutes after the last signature."""
    _check_permitted()
    key = SEALED["ed25519"].key(bench.person)
    with bench.holding("kagent", key, options=("--custody=sealed",)) as kagent:
        many_clients(kagent.socket, sign_request(key), FEW, 10)
        time.sleep(_LATER)
        whole = Series("kagent", (sum(_parts(kagent).values()),))
    what, goal = "memory, ten minutes after a signature", Goal(15)
    yield Row(name, what, "MB", whole, goal=goal)


def idle(name: str, bench: Bench) -> Iterator[Row]:
    """As a service that nobody uses, where the kernel has the keys."""
    _check_permitted()
    check_kernel_signs()
    key = KERNEL["rsa-2048"].key(bench.person)
    with listening(bench) as listener, service(bench, listener, "1s") as process:
        bench.person.run("ssh-add", "-q", key, SSH_AUTH_SOCK=listener.getsockname())
        pids = list(below(process.pid))
        wait_until(lambda: process.poll() is not None)
        time.sleep(_SETTLED)
        left = sum(map(_proportional_size, pids))
    what = "memory, idle with keys in the kernel"
    yield Row(name, what, "MB", Series("kagent as a service", (left,)), goal=Goal(0))


def _check_permitted() -> None:
    if os.getuid() != 0:
        raise NotHere("only root can look at the memory of an agent")


def _parts(agent: Agent) -> dict[str, float]:
    """Each kind of its processes: what they take together, in MB."""
    parts: dict[str, float] = {}
    for pid in below(agent.process.pid):
        # The one in the foreground has no name of its own: it passes signals on.
        part = "foreground" if pid == agent.process.pid else name_of(pid).removeprefix("kagent-")
        parts[part] = parts.get(part, 0.0) + _proportional_size(pid)
    return parts


def _proportional_size(pid: int) -> float:
    """In MB: each page as a part of one, if several processes share it.  0.0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
