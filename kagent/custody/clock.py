"""The clock that deadlines are by: nobody can set it, and it goes on while the machine sleeps."""

from __future__ import annotations

import time

SECOND = 10**9  # nanoseconds
MILLISECOND = 10**6


def now() -> int:
    """Nanoseconds since boot: CLOCK_BOOTTIME.  clock_gettime(2)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
