"""Tells the user that keys were used, for who wants to be told: one notice for many within seconds.

Nothing that signs waits for it, and whatever clients do, one worker at a time is at it.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

import trio

from .. import log
from ..jobs.causes import Cause
from ..jobs.jobs import Done, Kind, Refused
from ..jobs.questions import Notice, Origin, Used
from .channels import Workers
from .configured import Fetching
from .signature_log import Entry

# From one notice to the next, and to the next look for somebody who shows them.
_SECONDS_BETWEEN, _SECONDS_WITHOUT = 4.0, 60.0
# For which what is configured holds without another look.
_SECONDS_TO_BELIEVE = 10.0

# Lines of a notice; and uses that are told apart until it is sent.
_MOST_LINES = 5
_MOST_KINDS = 100
_LONGEST = 200  # characters
_MOST_NAMES = 3  # the nearest programs, and the last hosts


class _Use(NamedTuple):
    """What is told of a signature."""

    blob: bytes  # the plain key's
    comment: str
    programs: tuple[str, ...]
    hosts: tuple[str, ...]
    forwarded: bool


class Notices:
    """What was signed and isn't told yet."""

    def __init__(self, workers: Workers, fetching: Fetching) -> None:
        self._workers = workers
        self._fetching = fetching
        self._uses: Counter[_Use] = Counter()
        self._more = 0  # of whatever kinds
        self._some = trio.Event()
        self._fault = ""  # of the last notice, in words

    def used(self, entry: Entry, origin: Origin | None) -> None:
        """Somebody has a signature; `origin` is who, if that is known."""
        if not (entry.key and entry.identity):
            return
        use = _Use(
            entry.key.plain_blob,
            entry.identity.comment[:_LONGEST],
            _shortened(origin.asker.programs) if origin else (),
            _shortened(origin.hosts[-_MOST_NAMES:]) if origin else (),
            entry.forwarded,
        )
        if use in self._uses or len(self._uses) < _MOST_KINDS:
            self._uses[use] += 1
        else:
            self._more += 1
        self._some.set()

    async def tell(self) -> None:
        """Do so, until it is cancelled."""
        while True:
            await self._some.wait()
            try:
                pause = await self._tell_once()
            except Exception as error:
                # A fault of ours is not to end the front.
                log.error(f"the user isn't told of signatures: {type(error).__name__}: {error}")
                pause = _SECONDS_WITHOUT
            await trio.sleep(pause)
            if pause == _SECONDS_WITHOUT:
                self._taken()

    async def _tell_once(self) -> float:
        """What is to be told by now; the seconds until it may be done again."""
        if trio.current_time() > self._fetching.looked + _SECONDS_TO_BELIEVE:
            await self._look()
        notice = self._taken()
        return _SECONDS_WITHOUT if notice and not await self._told(notice) else _SECONDS_BETWEEN

    async def _look(self) -> None:
        try:
            await self._fetching.offered(os.getpid(), forwarded=False)
        except OSError as error:
            log.error(f"who wants to be told of signatures is unknown: {error}")

    def _taken(self) -> Notice | None:
        """What there is to be told by now; None if nobody wants to know."""
        self._some = trio.Event()
        wishes = {one.blob: one.notify for one in reversed(self._fetching.rules) if one.notify}
        general = self._fetching.notify
        wanted = [
            (use, count)
            for use, count in self._uses.most_common()
            if (wish := wishes.get(use.blob, general)) == "always"
            or (wish == "forwarded" and use.forwarded)
        ]
        more = self._more if wanted else 0
        self._uses, self._more = Counter(), 0
        if not wanted:
            return None
        lines = tuple(
            Used(count, use.comment, use.programs, use.hosts, use.forwarded)
            for use, count in wanted[:_MOST_LINES]
        )
        return Notice(lines, more + sum(count for _, count in wanted[_MOST_LINES:]))

    async def _told(self, notice: Notice) -> bool:
        try:
            answer = await self._workers.send_out(Kind.NOTIFY, notice)
        except OSError as error:
            answer = Refused(Cause.FAULT, str(error))
        if isinstance(answer, Done):
            self._fault = ""
            return True
        fault = answer.reason if isinstance(answer, Refused) else "the notice worker died"
        if fault != self._fault:  # else each signature would say so
            log.warning(f"the user isn't told of signatures: {fault}")
        self._fault = fault
        return False


def _shortened(names: tuple[str, ...]) -> tuple[str, ...]:
    """What a notice has room for."""
    return tuple(name[:_LONGEST] for name in names[:_MOST_NAMES])
