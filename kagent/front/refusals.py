"""What was refused lately, for who asks with kagentctl why.  It ends with the front.

And what became of keys that were held: a request for one that is gone is refused, and not told
from one for a key that never was there but by this.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..custody import clock
from ..custody.identity import Identity, description_of
from ..jobs.causes import Cause
from ..jobs.questions import Origin
from ..protocol.messages import PastRefusal, Why
from .peer import Refusal

_MOST = 40  # refusals; each of them fits into an answer with as many others
_LONGEST = 200  # characters of each text: both of its ends
_MOST_GONE = 200  # keys
_ENDED = {
    Cause.EXPIRED: "its lifetime ended",
    Cause.UNUSED: "as it was not used for long enough, it was removed",
    Cause.REMOVED: "it was removed",
}


class _End(NamedTuple):
    """Why an identity isn't held any more, and from when on, as `clock` has it: that may be later.

    `latest` is when it ends however much it is used, 0 for never.
    """

    cause: Cause
    when: int
    latest: int = 0

    @classmethod
    def by_itself(cls, deadline: int, latest: int) -> _End:
        """Of one that nobody removes, at the earlier of the two."""
        if latest and latest <= deadline:
            return cls(Cause.EXPIRED, latest, latest)
        return cls(Cause.UNUSED, deadline, latest)


class Refusals:
    """Those of all clients, oldest first.

    What is refused over and over is one, with how often: so a program that tries again and again
    doesn't push out what else there was.
    """

    def __init__(self) -> None:
        self.last: PastRefusal | None = None
        self._past: dict[PastRefusal, PastRefusal] = {}
        self._number = 0
        self._gone: dict[str, _End] = {}  # by the identity's description

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

    def holds(self, identity: Identity) -> None:
        """That identity is held from now on, until its deadline if it has one."""
        self._gone.pop(identity.description, None)
        if identity.deadline:
            self._goes(identity.blob, _End.by_itself(identity.deadline, identity.latest))

    def used(self, identity: Identity) -> None:
        """One that ends when it isn't used was used now."""
        before = self._gone.get(identity.description)
        if before and before.cause is Cause.REMOVED:  # meanwhile
            return
        latest = before.latest if before else 0
        self._goes(identity.blob, _End.by_itself(clock.now() + identity.idle, latest))

    def removed(self, blob: bytes) -> None:
        """That identity was removed by a client."""
        self._goes(blob, _End(Cause.REMOVED, clock.now()))

    def _goes(self, blob: bytes, end: _End) -> None:
        description = description_of(blob)
        self._gone.pop(description, None)  # so that the newest are last
        self._gone[description] = end
        if len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def no_such_key(self, blob: bytes) -> Refusal | None:
        """What to say of a key that isn't held any more; None if it never was."""
        end = self._gone.get(description_of(blob))
        if end is None or (ago := (clock.now() - end.when) / clock.SECOND) < 0:
            return None
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - ago))
        return Refusal(end.cause, f"no such key: {_ENDED[end.cause]} at {at}")


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[: half - 1]}…{text[-half:]}"
