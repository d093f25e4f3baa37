"""The lookout: tells who asks, and what the hosts on the way are called.

It has no key, leaves the agent's keyrings, and can do no more than read files, so it may live as
long as the front that it answers: a fork for each client would cost more than most signatures.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from .. import confine, log
from ..confine import profiles
from ..keyctl import join_session_keyring
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
        join_session_keyring(None)
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
        os.write(pipe, pack_answer(confirm.origin(Who.read(Reader(request)))))
    except BrokenPipeError:
        pass  # nobody waits for it any more
    os.close(pipe)
    signal.alarm(0)
