"""The lookout: tells who asks, and what the hosts on the way are called.

It has no key and can ask for none, and what it can do beyond answering is to read files, so it may
live as long as the front: a fork for each client would cost more than most signatures.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import NoReturn

from .. import confine, log
from ..confine import profiles
from ..protocol.messages import MAX_PAYLOAD
from ..protocol.wire import Reader
from . import confirm
from .jobs import pack_answer
from .questions import Who

# Compiled by the keeper, for each that it starts.
_FILTER = profiles.lookout()

_LONGEST_REQUEST = 2 * MAX_PAYLOAD
_SECONDS = 2  # the front waits for one


def run(channel: socket.socket) -> NoReturn:
    """Its life, from after the fork.  Each packet is a Who, with the pipe for the answer."""
    try:
        confine.set_name("kagent-lookout")
        # Taken first: what then ends this process ends one request, and another process can't
        # meet the same end over and over.
        request, pipe = _next(channel)
        # Behind the filter no user can be looked up.
        os.environ.setdefault("HOME", os.path.expanduser("~"))
        _FILTER.install()
        while True:
            _answer(request, pipe)
            request, pipe = _next(channel)
    except Exception as error:
        log.error(f"who asks can't be told: {type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _next(channel: socket.socket) -> tuple[bytes, int]:
    request, descriptors, _, _ = socket.recv_fds(channel, _LONGEST_REQUEST, 1)
    if not request:
        os._exit(0)  # the front has ended
    [pipe] = descriptors
    return request, pipe


def _answer(request: bytes, pipe: int) -> None:
    signal.alarm(_SECONDS)
    try:
        if not _given_up(pipe):
            os.write(pipe, pack_answer(confirm.origin(Who.read(Reader(request)))))
    except BrokenPipeError:
        pass
    os.close(pipe)
    signal.alarm(0)


def _given_up(pipe: int) -> bool:
    """Whether nobody waits at the other end any more."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))
