"""Why something was refused: what front, keeper and workers call the same."""

from __future__ import annotations

import errno

from ..custody.store import StillThere
from ..keyctl import KernelKeyError, KeyExpired, QuotaExceeded
from ..protocol.refusals import Cause, Explained
from ..protocol.wire import ProtocolError

__all__ = ["Cause", "cause_of"]

# What a user's other programs can take all of: processes, descriptors (in messages too), memory.
_USED_UP = frozenset(
    (
        *(errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS),
        *(errno.ENOMEM, errno.ENOSPC, errno.ETOOMANYREFS),
    )
)


def cause_of(error: Exception) -> Cause:
    """Of what is answered with a refusal."""
    match error:
        case Explained() | ProtocolError():
            return error.cause
        case QuotaExceeded():
            return Cause.QUOTA
        case KeyExpired():
            return Cause.EXPIRED
        case OSError() if error.errno in _USED_UP:
            return Cause.USED_UP
        case KernelKeyError():
            return Cause.KERNEL
        case StillThere():
            return Cause.STILL_THERE
    return Cause.FAULT
