"""One-shot sign workers: forked ahead of need, each makes one signature with a sealed key and ends.

What is to be signed is opaque here, so no client's structure is ever parsed where a sealed key is.

A signature costs a process, and most of what a process costs is the memory that it touches first:
hence the care for what happens between the fork and the end.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Sequence
from functools import cache
from typing import NoReturn

from .. import confine
from ..confine import profiles
from ..confine.memory import Area
from ..custody import sealed as custody
from ..custody.rings import SealedRing
from ..keyctl import KernelKeyError
from ..protocol.messages import MAX_PAYLOAD
from . import forking
from .jobs import SIGN_HEADER_LENGTH, UNUSED, Refused, SignJob, pack_answer, pack_signature

# Compiled by the keeper, for all its forks.
_FILTER = profiles.sign_worker()

_SECONDS = 20  # a 16384-bit RSA signature takes one or two
_DESCRIPTOR = struct.Struct("=i")
_END_OF_DESCRIPTORS = os.sysconf("SC_OPEN_MAX")


@cache
def prepare() -> Sequence[Area]:
    """Do once what every fork would do anew; what of a fork's memory is to be locked."""
    custody.warm_up()
    return confine.memory_areas(python_objects=False)


def fork(channel: socket.socket, sealed: SealedRing) -> int:
    """Start a worker that waits at `channel`; its pid.  Only the keeper comes back."""
    memory = prepare()
    child = forking.fork()
    if child:
        return child
    try:
        _run(channel, sealed, memory)
    finally:
        os._exit(1)


def _run(channel: socket.socket, sealed: SealedRing, memory: Sequence[Area]) -> NoReturn:
    # When the keeper ends, so does the front, and with it this worker's wait.
    signal.set_wakeup_fd(-1)
    os.closerange(3, channel.fileno())
    os.closerange(channel.fileno() + 1, _END_OF_DESCRIPTORS)
    confine.lock_memory(memory)
    _FILTER.install()
    packet, ancillary, _, _ = channel.recvmsg(
        SIGN_HEADER_LENGTH + MAX_PAYLOAD, socket.CMSG_LEN(_DESCRIPTOR.size)
    )
    if not packet:
        os._exit(UNUSED)
    signal.alarm(_SECONDS)
    [(_, _, descriptor)] = ancillary
    [answer] = _DESCRIPTOR.unpack(descriptor)
    os.write(answer, _sign(packet, sealed))
    # By itself this would come late, after the memory's end: the front waits for it.
    os.close(answer)
    os._exit(0)


def _sign(packet: bytes, sealed: SealedRing) -> bytes:
    """The packed answer."""
    try:
        job = SignJob.unpack(packet)
        payload = sealed.read(job.description)
        return pack_signature(custody.sign(payload, job.algorithm, job.data))
    except KernelKeyError as error:
        return pack_answer(Refused(f"the sealed key can't be read: {error}"))
    except Exception as error:
        # Not its text: it could show values of the key.
        return pack_answer(Refused(f"the sealed key can't sign: {type(error).__name__}"))
