"""One-shot workers for what the front may not do itself: ask the user, verify.

They parse what clients sent and run other programs, so they leave the agent's keyrings first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import NoReturn

from .. import log, skhelper
from ..custody import token
from ..custody.device import SignWithDevice
from ..custody.identity import description_of
from ..custody.rings import KeeperRings
from ..keyctl import KernelKeyError, enter_private_session, join_session_keyring
from ..protocol.messages import SessionBind
from ..protocol.wire import ProtocolError, Reader
from ..verify import BadSignature, check_bind
from . import confirm, fetching
from .jobs import WAITING, Answer, Done, Job, Kind, Refused, Signed, pack_answer
from .loader import receive
from .policy import Policy
from .questions import DeviceSignature, Fetch, Question

_SECONDS = 10
_SECONDS_OF_OTHERS = 150  # of which the user has 120, and kagent-provision as much


def run(job: Job, descriptors: Sequence[int], rings: KeeperRings, policy: Policy) -> NoReturn:
    """The life of such a worker, from after the fork to its end.  `descriptors` as in Kind."""
    request, *client, answer = descriptors
    try:
        signal.alarm(_SECONDS_OF_OTHERS if job.kind in WAITING else _SECONDS)
        body = receive(request, job.body_length)
        if body is not None:
            done = _carry_out(job.kind, Reader(body), rings, policy, *client)
            os.write(answer, pack_answer(done))
            # By itself this would come late, after the memory's end: the front waits for it.
            os.close(answer)
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except Exception as error:
        log.error(f"{job.kind.name} failed: {type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _carry_out(
    kind: Kind, record: Reader, rings: KeeperRings, policy: Policy, gone: int = -1
) -> Answer:
    # When the peer of `gone` has gone, nobody waits for the user's answer any more.
    if kind is Kind.DEVICE:
        return _sign_with_device(DeviceSignature.read(record), rings)
    if kind in (Kind.OFFER, Kind.FETCH):
        ring = rings.shared.fetched
        enter_private_session(ring)
        if kind is Kind.OFFER:
            return fetching.offer(ring, policy)
        return fetching.fetch(Fetch.read(record), ring, policy)
    join_session_keyring(None)
    match kind:
        case Kind.CONFIRM:
            return confirm.confirm(Question.read(record), gone)
        case Kind.CHECK_BIND:
            return _check_bind(SessionBind.read(record))
    raise ValueError(f"no errand: {kind.name}")


def _sign_with_device(request: DeviceSignature, rings: KeeperRings) -> Answer:
    try:
        held = rings.sealed.read(description_of(request.blob))
        # The library that talks to the token must not find the agent's keyrings.
        join_session_keyring(None)
        details = "\n".join(confirm.details(request.question))
        return Signed(token.sign(SignWithDevice(request.blob, request.data, details), held))
    except KernelKeyError as error:
        return Refused(f"the key's handle can't be read: {error}")
    except (skhelper.HelperError, ProtocolError) as error:
        return Refused(str(error))


def _check_bind(bind: SessionBind) -> Answer:
    try:
        check_bind(bind)
    except BadSignature as error:
        return Refused(str(error))
    return Done()
