"""Whether the host that a connection leads to has proved who it is."""

from __future__ import annotations

from ..jobs.causes import Cause
from ..jobs.jobs import Done, Refused
from ..private.verify import BadSignature, CannotVerify, check_bind
from ..protocol.messages import SessionBind


def check(bind: SessionBind) -> Done | Refused:
    """The job of verifying a host's signature over the session id."""
    try:
        check_bind(bind)
    except CannotVerify as error:
        return Refused(Cause.LIBRARY, str(error))
    except BadSignature as error:
        return Refused(Cause.UNPROVEN, str(error))
    return Done()
