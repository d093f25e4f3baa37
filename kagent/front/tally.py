"""What the front can tell of itself, to who asks with kagentctl status or why."""

from __future__ import annotations

import os
import time

from .. import __version__
from ..protocol.messages import Status
from .refusals import Refusals


class Tally:
    """Counts from the front's start, which must be made before it is confined."""

    def __init__(self) -> None:
        self.since = int(time.time())
        self.keeper = os.getppid()
        self.signatures = 0
        self.pending = 0  # questions that the user has not answered yet, and tokens not touched
        self.refusals = Refusals()

    def status(self, *, locked: bool, idle_exit: int, stays: bool) -> Status:
        """As it is now."""
        last = self.refusals.last
        return Status(
            self.keeper,
            self.since,
            self.signatures,
            self.pending,
            last.reason if last else "",
            last.at if last else 0,
            locked,
            idle_exit,
            stays,
            __version__,
        )
