"""What was refused lately, for who asks with kagentctl why.  It ends with the front.

And what became of keys that were held: a request for one that is gone is refused, and not told
from one for a key that never was there but by this.
"""

from __future__ import annotations

import time

from ..custody import clock
from ..custody.identity import description_of
from ..jobs.causes import Cause
from ..jobs.questions import Origin
from ..protocol.messages import PastRefusal, Why
from .peer import Refusal

_MOST = 40  # refusals; each of them fits into an answer with as many others
_LONGEST = 200  # characters of each text: both of its ends
_MOST_GONE = 200  # keys


class Refusals:
    """Those of all clients, oldest first.

    What is refused over and over is one, with how often: so a program that tries again and again
    doesn't push out what else there was.
    """

    def __init__(self) -> None:
        self.last: PastRefusal | None = None
        self._past: dict[PastRefusal, PastRefusal] = {}
        self._number = 0
        # By the identity's description, why it isn't held any more; and from when on, as `clock`
        # has it, since a lifetime may not be over yet.
        self._gone: dict[str, tuple[Cause, int]] = {}

    def add(
        self,
        cause: Cause,
        reason: str,
        *,
        request: str,
        origin: Origin | None,
        forwarded: bool = False,
        fingerprint: str = "",
        comment: str = "",
        user: str = "",
    ) -> None:
        """Keep one."""
        what = PastRefusal(
            0,
            0,
            cause,
            _shortened(request),
            _shortened(reason),
            fingerprint,
            _shortened(comment),
            "",
            _shortened(" → ".join(origin.hosts) if origin else ""),
            _shortened(user),
            forwarded,
        )
        # The same program has another pid each time.
        programs = origin.asker.programs if origin else ()
        same = what.replace(by=_shortened(" ← ".join(programs)))
        times = self._past.pop(same).times + 1 if same in self._past else 1
        by = _shortened(str(origin.asker) if origin else "")
        self.last = what.replace(at=int(time.time()), times=times, by=by)
        self._past[same] = self.last
        self._number += 1
        if len(self._past) > _MOST:
            # Other hosts may ask for whatever they like: half of the room is theirs, and not more.
            here = [one for one in self._past if not one.forwarded]
            there = [one for one in self._past if one.forwarded]
            del self._past[max(here, there, key=len)[0]]

    def told(self, since: int) -> Why:
        """All of them."""
        return Why(since, self._number, tuple(self._past.values()))

    def holds(self, blob: bytes, deadline: int) -> None:
        """That identity is held from now on, until `deadline` of `clock`, or 0."""
        self._gone.pop(description_of(blob), None)
        if deadline:
            self._goes(blob, Cause.EXPIRED, deadline)

    def removed(self, blob: bytes) -> None:
        """That identity was removed by a client."""
        self._goes(blob, Cause.REMOVED, clock.now())

    def _goes(self, blob: bytes, cause: Cause, when: int) -> None:
        self._gone[description_of(blob)] = (cause, when)
        if len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def no_such_key(self, blob: bytes) -> Refusal | None:
        """What to say of a key that isn't held any more; None if it never was."""
        cause, when = self._gone.get(description_of(blob), (Cause.UNKNOWN_KEY, 0))
        ago = (clock.now() - when) / clock.SECOND
        if not when or ago < 0:
            return None
        what = "its lifetime ended" if cause is Cause.EXPIRED else "it was removed"
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - ago))
        return Refusal(cause, f"no such key: {what} at {at}")


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[: half - 1]}…{text[-half:]}"
