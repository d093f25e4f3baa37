"""Tells how the agent at SSH_AUTH_SOCK is: since when it runs, its keys by custody, for how many
more that the kernel signs with there is room, signatures, the last refusal, questions that wait for
you, whether it ends when idle, and its memory.  An agent that isn't running is not started."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ... import __version__
from ...configuration.identities import Identities
from ...custody import kernel
from ...openssh.times import date
from ...protocol.messages import STATUS, Extension, ExtensionResponse, Status
from ...protocol.wire import ProtocolError
from ...text import as_it_came
from ..client import START, AgentError, AgentUnavailable, Client, unreachable
from ..options import fail
from .units import SERVICE, NoSystemd, asleep, of_systemd, properties, socket_path

_SOURCES = ("file ", "credential ", "command ")
_ASLEEP = "not running; systemd starts it with the next request"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--json", dest="as_json", action="store_true", help="for programs")


def run(*, as_json: bool) -> int:
    """Print it; the exit code, 0 if kagent answers or would."""
    if asleep():
        facts: dict[str, object] = {"agent": _ASLEEP, "socket": socket_path()}
    else:
        try:
            facts = dict(_answers())
        except AgentUnavailable as error:
            fail(f"kagentctl: no agent: {unreachable(error)}; {START}")
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name + ':':12}{as_it_came(str(value))}")
    return 0


def _answers() -> Iterator[tuple[str, object]]:
    with Client() as client:
        try:
            answer = client.request(Extension(STATUS, b""), ExtensionResponse)
            status = Status.parse(answer.contents)
        except (AgentError, ProtocolError):
            fail(f"kagentctl: {client.what_to_do_instead()}")
        keys = "locked" if status.locked else _counted(client)
    by_systemd = of_systemd()
    yield "agent", f"running, {'started by systemd' if by_systemd else 'started by hand'}"
    yield "socket", os.environ["SSH_AUTH_SOCK"]
    yield "since", _time(status.since)
    yield "version", status.version
    if status.version != __version__:
        yield "upgrade", _upgrade(status, by_systemd)
    yield "keys", keys
    if (room := kernel.room(os.getuid())) is not None:
        yield "room", f"for about {room} more keys that the kernel signs with; others need none"
    yield "signatures", status.signatures
    if status.refusal:
        yield "refused", f"{status.refusal} ({_time(status.refused_at)})"
    if faults := Identities.read().faults:
        yield "faults", f"{faults[0]}; kagentctl check tells all of them"
    yield "pending", f"{status.pending} questions to you"
    yield "idle", _idle(status)
    if by_systemd and (kib := _memory_of_service()):
        yield "memory", f"{kib // 1024} MiB"
    else:
        yield "memory", _memory(status.keeper)


def _counted(client: Client) -> str:
    try:
        shown = client.shown()
    except (AgentError, ProtocolError):
        return client.why_not_shown()
    # Of one that isn't there yet, only that: where it comes from is told by show.
    counts = Counter(
        "to be fetched" if one.custody.startswith(_SOURCES) else one.custody for one in shown
    )
    return ", ".join(f"{number} {custody}" for custody, number in sorted(counts.items())) or "none"


def _upgrade(status: Status, by_systemd: bool) -> str:
    """When the version that is on the disk takes over, where that isn't the one that runs."""
    restart = f"systemctl --user restart {SERVICE}" if by_systemd else "end it and start another"
    if status.locked or status.stays or not status.idle_exit:
        lost = "" if status.idle_exit and not status.stays else ", without the keys that it holds"
        return f"to {__version__} when you say so{lost}: {restart}"
    return f"to {__version__} when idle, or when you say so; its keys stay: {restart}"


def _idle(status: Status) -> str:
    if not status.idle_exit:
        return "stays when idle"
    if status.locked:
        return "stays when idle, since it is locked"
    if status.stays:
        return "stays when idle, since it holds what would end with it"
    return f"ends when idle for {status.idle_exit} seconds; its keys stay"


def _time(seconds: int) -> str:
    return date(seconds, "%Y-%m-%d %H:%M:%S", local=True)


def _memory_of_service() -> int:
    """KiB, as systemd counts them; 0 if it doesn't."""
    try:
        text = properties(SERVICE, "MemoryCurrent").get("MemoryCurrent", "")
    except NoSystemd:
        return 0
    return int(text) // 1024 if text.isdecimal() else 0  # or it is "[not set]"


def _memory(keeper: int) -> str:
    """That of all of an agent's processes.

    What they share, which is most of it, is counted once: proc_pid_smaps_rollup(5).  That shows
    none but root what a process has that lets nobody look into it.
    """
    processes = list(_family(keeper))
    try:
        return f"{sum(_proportional(pid) for pid in processes) // 1024} MiB"
    except PermissionError:
        most = max(map(_resident, processes), default=0) // 1024
        return f"{most} MiB in the largest of {len(processes)} processes, which share most of it"


def _family(pid: int) -> Iterator[int]:
    """A process, its children, and theirs."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in map(int, children):
        yield from _family(child)


def _proportional(pid: int) -> int:
    """KiB, of which what n processes share counts an nth.  Raises PermissionError."""
    return _kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


def _resident(pid: int) -> int:
    """KiB, with all that it shares."""
    return _kib(Path(f"/proc/{pid}/status"), "VmRSS")


def _kib(file: Path, name: str) -> int:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        found = None  # many a worker lives for milliseconds
    return int(found[1]) if found else 0
