"""Why something was refused: what front, keeper and workers call the same."""

from __future__ import annotations

from ..custody.store import StillThere
from ..keyctl import KernelKeyError, KeyExpired, QuotaExceeded
from ..protocol.refusals import Cause, Explained
from ..protocol.wire import ProtocolError

__all__ = ["Cause", "cause_of"]


def cause_of(error: Exception) -> Cause:
    """Of what is answered with a refusal."""
    match error:
        case Explained() | ProtocolError():
            return error.cause
        case QuotaExceeded():
            return Cause.QUOTA
        case KeyExpired():
            return Cause.EXPIRED
        case KernelKeyError():
            return Cause.KERNEL
        case StillThere():
            return Cause.STILL_THERE
    return Cause.FAULT
