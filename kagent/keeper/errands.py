"""One-shot workers for what the front may not do itself: look at processes, ask the user, verify.

They parse what clients sent and run other programs, so they leave the agent's keyrings first.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from .. import log
from ..custody.rings import KeeperRings
from ..keyctl import enter_private_session
from ..protocol.publickey import PublicKey
from ..protocol.wire import ProtocolError, Reader
from ..verify import BadSignature, verify, verify_certificate
from . import confirm
from .jobs import ASKING, Answer, Done, Job, Kind, Refused, pack_answer
from .loader import receive
from .questions import CheckBind, Question, Who

_SECONDS = 10
_SECONDS_WITH_USER = 150  # of which the user has 120


def run(job: Job, request: int, client: int, answer: int, rings: KeeperRings) -> NoReturn:
    """The life of such a worker, from after the fork to its end.

    The job's Record comes from `request`; when the peer of `client` goes, nobody waits any more.
    """
    try:
        signal.alarm(_SECONDS_WITH_USER if job.kind in ASKING else _SECONDS)
        enter_private_session(rings.shared.login)
        body = receive(request, job.body_length)
        if body is not None:
            os.write(answer, pack_answer(_carry_out(job.kind, Reader(body), client)))
    except Exception as error:
        log.error(f"{job.kind.name} failed: {type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _carry_out(kind: Kind, record: Reader, client: int) -> Answer:
    match kind:
        case Kind.CONFIRM:
            return confirm.confirm(Question.read(record), client)
        case Kind.WHO:
            return confirm.origin(Who.read(record))
        case Kind.CHECK_BIND:
            return _check_bind(CheckBind.read(record))
    raise ValueError(f"no errand: {kind.name}")


def _check_bind(bind: CheckBind) -> Answer:
    try:
        key = PublicKey.parse(bind.host_key)
        verify_certificate(key)
        verify(key, bind.signature, bind.session_id)
    except (ProtocolError, BadSignature) as error:
        return Refused(f"session-bind: {error}")
    return Done()
