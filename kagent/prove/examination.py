"""An agent and a control, looked at by the same search; and what that shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ..protocol.privatekey import PrivateKey
from .control import Control
from .memory import Search, Seen
from .needles import Needles
from .processes import Process, Still

# A worker may have a key while it works: with the longest, a signature takes two seconds.
_GRACE = 5.0
_POLL = 0.05
_UNSEEN = Seen(0, frozenset(), 0)


class Verdict(StrEnum):
    """What comes of it."""

    NOTHING = "nothing found"
    FOUND = "found"
    NOT_PROVED = "not proved"


@dataclass(frozen=True)
class Looked:
    """What was seen of a process; `fault` says why nothing was.

    `ended` is whether it had something and is gone since: a worker at its work.
    """

    process: Process
    seen: Seen = _UNSEEN
    fault: str = ""
    ended: bool = False


@dataclass(frozen=True)
class Examination:
    """The agent's processes, and the control before and after it was given the keys.

    `lost` is what the control has and the search didn't find there, as (key, number).
    """

    agent: list[Looked]
    before: Looked
    after: Looked
    lost: set[tuple[str, str]]

    @property
    def verdict(self) -> Verdict:
        """What was found counts, whatever else went wrong."""
        if any(one.seen.found and not one.ended for one in self.agent):
            return Verdict.FOUND
        return Verdict.NOT_PROVED if self.doubts else Verdict.NOTHING

    @property
    def doubts(self) -> list[str]:
        """Why it would prove nothing that nothing was found."""
        doubts = []
        if not self.agent:
            doubts.append("the agent has no process")
        if any(one.fault or one.seen.unread for one in self.agent):
            doubts.append("not all of the agent's memory could be read")
        if self.before.seen.found:
            doubts.append("the search finds keys where they are not")
        if self.lost:
            names = ", ".join(f"{number} of {key}" for key, number in sorted(self.lost))
            doubts.append(f"the search doesn't find what is there, in the control: {names}")
        return doubts


def examine(
    agent: Callable[[], list[Process]],
    keys: Mapping[str, tuple[PrivateKey, bytes]],
    control: Control,
) -> Examination:
    """Look for keys, each given by name and also as PKCS#8, in the processes that `agent` finds.

    They stand still meanwhile, all at once: for a second or two.  Raises OSError.
    """
    needles = Needles({name: key for name, (key, _) in keys.items()})
    search = Search(needles)
    [before] = _look(control.processes, search)
    control.load([written for _, written in keys.values()])
    found = [_settled(one) for one in _look(agent, search)]
    [after] = _look(control.processes, search)
    seen = {(trace.key, trace.number) for trace in after.seen.found}
    return Examination(found, before, after, needles.numbers - seen)


def _look(find: Callable[[], list[Process]], search: Search) -> list[Looked]:
    held: dict[int, tuple[Process, str]] = {}
    with Still() as still:
        # Until none is new: those that aren't held yet may start others.
        while new := [one for one in find() if one.pid not in held]:
            for process in new:
                fault = ""
                try:
                    still.hold(process.pid)
                except OSError as error:
                    fault = error.strerror or str(error)
                held[process.pid] = process, fault
        looked = [_look_at(process, fault, search) for process, fault in held.values()]
    # Workers come and go.
    return [one for one in looked if not one.fault or one.process.alive]


def _look_at(process: Process, fault: str, search: Search) -> Looked:
    try:
        return Looked(process, fault=fault) if fault else Looked(process, search.look(process.pid))
    except OSError as error:
        return Looked(process, fault=error.strerror or str(error))


def _settled(looked: Looked) -> Looked:
    deadline = time.monotonic() + _GRACE
    while looked.seen.found and looked.process.alive:
        if time.monotonic() > deadline:
            return looked
        time.sleep(_POLL)
    return replace(looked, ended=bool(looked.seen.found))
