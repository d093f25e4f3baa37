"""What the front can tell of itself, to who asks with kagentctl status."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from ..protocol.messages import Status


@dataclass
class Tally:
    """Counts from the front's start, which must be made before it is confined."""

    since: int = field(default_factory=lambda: int(time.time()))
    keeper: int = field(default_factory=os.getppid)
    signatures: int = 0
    pending: int = 0  # questions that the user has not answered yet, and tokens not touched
    refusal: str = ""
    refused_at: int = 0

    def refused(self, reason: str) -> None:
        """Keep it as the last."""
        self.refusal, self.refused_at = reason, int(time.time())

    def status(self, *, locked: bool, idle_exit: int, stays: bool) -> Status:
        """As it is now."""
        return Status(
            self.keeper,
            self.since,
            self.signatures,
            self.pending,
            self.refusal,
            self.refused_at,
            locked,
            idle_exit,
            stays,
        )
