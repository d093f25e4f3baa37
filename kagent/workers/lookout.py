"""The lookout: tells who asks, what the hosts on the way are called, and which keys one is offered,
and words the question.

It has no key and can ask for none, and what it can do beyond answering is to read files, so it may
live for many clients: a fork for each client would cost more than most signatures.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import NoReturn

from .. import log
from ..jobs.jobs import Answer, pack_answer
from ..jobs.questions import Host, Inquiry, Who, unpack_inquiry
from ..jobs.sockets import given_up
from ..protocol.messages import MAX_PAYLOAD
from .fitting import Fitting
from .wording import origin, worded

_LONGEST_REQUEST = 2 * MAX_PAYLOAD
_SECONDS = 2  # the front waits for one
_UNREAD, _FAILED = 1, 2  # exit codes; after the first the keeper drops the request
# As long as somebody is at work; a new one is a fork, in milliseconds.
_IDLE_SECONDS = 600


def run(channel: socket.socket) -> NoReturn:
    """Its life, from after the fork.  Each packet is an inquiry, with the pipe for the answer."""
    fitting = Fitting()
    try:
        while True:
            _answer(*_next(channel), fitting)
    except Exception as error:
        log.error(f"who asks can't be told: {type(error).__name__}: {error}")
    finally:
        os._exit(_FAILED)


def _next(channel: socket.socket) -> tuple[bytes, int]:
    asked = select.poll()
    asked.register(channel, select.POLLIN)
    try:
        is_asked = asked.poll(_IDLE_SECONDS * 1000)
    except OSError as error:  # no descriptor is allowed any more, and any program can see to that
        log.error(f"who asks can't be told: {error}")
        os._exit(_UNREAD)
    if not is_asked:
        os._exit(0)  # what comes now waits in the channel, and the keeper starts another
    request, descriptors, _, _ = socket.recv_fds(channel, _LONGEST_REQUEST, 1)
    if not request:
        os._exit(0)  # the front has ended
    [pipe] = descriptors
    return request, pipe


def _answer(request: bytes, pipe: int, fitting: Fitting) -> None:
    signal.alarm(_SECONDS)
    try:
        if not given_up(pipe):
            asked = unpack_inquiry(request)
            os.write(pipe, pack_answer(_told(asked, fitting)))
    except BrokenPipeError:
        pass
    os.close(pipe)
    signal.alarm(0)


def _told(asked: Inquiry, fitting: Fitting) -> Answer:
    match asked:
        case Who():
            return origin(asked)
        case Host():
            return fitting.offering(asked)
        case _:
            return worded(asked)
