"""What the front may not do itself, each by a process of its own: the table of errands.

They read a Record from a socket, do what it says, and answer through a pipe.  What each possesses
and may do stands in jobs.roles; it has lost the rest before it is here.

The keeper imports what does them all before there is a key; but the first list of keys doesn't wait
for more than it needs.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .. import log
from ..custody.rings import KeeperRings
from ..jobs import roles
from ..jobs.jobs import Answer, Job, Kind, pack_answer
from ..jobs.questions import (
    Ask,
    Certify,
    DeviceSignature,
    Fetch,
    Learn,
    ListBehind,
    Notice,
    Offer,
    SignBehind,
)
from ..jobs.roles import Role
from ..jobs.terms import Terms
from ..protocol.messages import SessionBind
from ..protocol.wire import Record
from . import fetch

if TYPE_CHECKING:
    from .learn import Notes
    from .relay import AgentBehind

_SECONDS = 10
_SECONDS_TO_SEND = 20
_SECONDS_OF_COMMANDS = 55  # of which a command has 45
_SECONDS_OF_OTHERS = 150  # of which the user has 120, and kagent-provision as much


class Context(NamedTuple):
    """What an errand has besides its request.

    When the client has gone, or the front, which has the other ends of `gone`, nobody waits for the
    user's answer any more.  `behind` is the agent behind that a relay worker asks, `configured`
    what a fetch worker has read, `notes` the file that a learn worker writes.
    """

    rings: KeeperRings
    terms: Terms
    gone: tuple[int, ...]
    behind: AgentBehind | None = None
    configured: fetch.Read | None = None
    notes: Notes | None = None


class Errand(NamedTuple):
    """How a kind of job is done: as what, with what request, in how many seconds, and by whom."""

    role: Role
    request: type[Record]
    seconds: int
    carry_out: Callable[[Any, Context], Answer]


def _check_bind(request: SessionBind, context: Context) -> Answer:
    from . import bind

    return bind.check(request)


def _ask(request: Ask, context: Context) -> Answer:
    from . import asking

    return asking.ask(request, context.gone)


def _sign_with_device(request: DeviceSignature, context: Context) -> Answer:
    from . import device

    return device.sign(request, context.rings.handles.reader, context.terms.providers, context.gone)


def _certify(request: Certify, context: Context) -> Answer:
    from . import certify

    return certify.certify(request)


def _notify(request: Notice, context: Context) -> Answer:
    from . import notify

    return notify.tell(request)


def _ask_behind(request: ListBehind, context: Context) -> Answer:
    assert context.behind
    return context.behind.answer(request)


def _fetch(request: Fetch, context: Context) -> Answer:
    assert context.configured
    return fetch.fetch(request, context.configured, context.rings.shared.fetched, context.terms)


def _learn(request: Learn, context: Context) -> Answer:
    assert context.notes
    return context.notes.learn(request)


ERRANDS = {
    Kind.CHECK_BIND: Errand(roles.BIND, SessionBind, _SECONDS, _check_bind),
    Kind.ASK: Errand(roles.ASK, Ask, _SECONDS_OF_OTHERS, _ask),
    Kind.DEVICE: Errand(roles.DEVICE, DeviceSignature, _SECONDS_OF_OTHERS, _sign_with_device),
    Kind.OFFER: Errand(
        roles.OFFER,
        Offer,
        _SECONDS,
        lambda request, context: fetch.offer(request, context.rings.shared.fetched, context.terms),
    ),
    Kind.FETCH: Errand(
        roles.FETCH,
        Fetch,
        _SECONDS_OF_OTHERS,
        _fetch,
    ),
    Kind.LIST_BEHIND: Errand(roles.RELAY, ListBehind, _SECONDS, _ask_behind),
    Kind.SIGN_BEHIND: Errand(roles.RELAY, SignBehind, _SECONDS_OF_OTHERS, _ask_behind),
    Kind.LEARN: Errand(roles.LEARN, Learn, _SECONDS, _learn),
    Kind.CERTIFY: Errand(roles.CERTIFY, Certify, _SECONDS_OF_COMMANDS, _certify),
    Kind.NOTIFY: Errand(roles.NOTIFY, Notice, _SECONDS, _notify),
}


def run(
    errand: Errand, job: Job, descriptors: Sequence[int], rings: KeeperRings, terms: Terms
) -> NoReturn:
    """The life of such a worker, from after the fork to its end.  `descriptors` as in Kind."""
    request, *client, answer = descriptors
    try:
        signal.alarm(errand.seconds)
        context = Context(rings, terms, (*client, answer))
        if errand.role is roles.RELAY:
            from . import relay  # only where there are agents behind

            context = context._replace(behind=relay.AgentBehind(terms.behind[job.number]))
        elif errand.role is roles.FETCH:
            context = context._replace(configured=fetch.read_all(rings.shared.fetched))
        elif errand.role is roles.LEARN:
            from . import learn

            context = context._replace(notes=learn.Notes())
        body = receive(request, job.body_length)
        if body is not None:
            asked = errand.request.parse(body)
            done = errand.carry_out(asked, context)
            os.write(answer, pack_answer(done))
            # By itself this would come late, after the memory's end: the front waits for it.
            os.close(answer)
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except Exception as error:
        log.error(f"{job.kind.name} failed: {type(error).__name__}: {error}")
    finally:
        os._exit(0)


def receive(client: int, length: int) -> bytes | None:
    """A request's body, and nothing behind it; None if the client went away."""
    with socket.socket(fileno=client) as stream:
        stream.settimeout(_SECONDS_TO_SEND)
        received = bytearray()
        while len(received) < length:
            chunk = stream.recv(length - len(received))
            if not chunk:
                return None
            received += chunk
        return bytes(received)
