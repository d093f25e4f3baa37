"""One-shot sign workers: forked ahead of need, each makes one signature with a sealed key and ends.

What is to be signed is opaque here, so no client's structure is ever parsed where a sealed key is.
Their parent has left all keyrings but the sealed one behind, and reads nothing; they are its forks
and have no more.

A signature costs a process, and most of what a process costs is the memory that it touches first:
hence the care for what happens between the fork and the end.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Sequence
from functools import cache
from typing import NoReturn

from .. import log
from ..confine import forking, memory, process
from ..confine.memory import Area
from ..custody.rings import sealing_key
from ..custody.shelf import Shelf
from ..jobs import roles
from ..jobs.jobs import SIGN_HEADER_LENGTH, UNUSED, Refused, SignJob, pack_answer, pack_signature
from ..keyctl import KernelKeyError, Keyring
from ..private import sealed as custody
from ..protocol.messages import MAX_PAYLOAD

# Workers that wait, forked ahead of need: two for each processor, so that one can sign while the
# next is forked.
_POOL_SIZE = 2 * (os.cpu_count() or 1)

_SECONDS = 20  # a 16384-bit RSA signature takes one or two
_MOMENT = 0.1  # before another try, where a fork fails or what is forked
_DESCRIPTOR = struct.Struct("=i")


@cache
def prepare() -> Sequence[Area]:
    """Do once what every fork would do anew; what of a fork's memory is to be locked."""
    custody.warm_up()
    return memory.memory_areas(python_objects=False)


def run(channel: socket.socket, sealing: Keyring, sealed: Shelf) -> NoReturn:
    """The life of the workers' parent: have as many wait at `channel` as there should be."""
    waiting: set[int] = set()
    while True:
        try:
            while len(waiting) < _POOL_SIZE:
                waiting.add(_fork(channel, sealing, sealed))
        except OSError as error:  # no more processes, say
            log.error(f"no sign worker can be started: {error}")
            time.sleep(_MOMENT)
        if not waiting:
            continue
        child, status = os.wait()
        waiting.discard(child)
        code = os.waitstatus_to_exitcode(status)
        if code == UNUSED:
            os._exit(UNUSED)
        if code < 0:
            log.warning(f"a sign worker ended by signal {-code}")
        elif code:
            time.sleep(_MOMENT)


def _fork(channel: socket.socket, sealing: Keyring, sealed: Shelf) -> int:
    """Start a worker that waits at `channel`; its pid.  Only the parent comes back."""
    areas = prepare()
    parent = os.getpid()
    child = forking.fork()
    if child:
        return child
    try:
        process.die_with_parent()
        if os.getppid() == parent:
            _work(channel, sealing, sealed, areas)
    finally:
        os._exit(1)


def _work(
    channel: socket.socket, sealing: Keyring, sealed: Shelf, areas: Sequence[Area]
) -> NoReturn:
    process.set_name(roles.SIGN.name)
    memory.lock_memory(areas)
    roles.tell_if_limit_was_lowered(roles.SIGN.title)
    assert roles.SIGN.filter
    roles.SIGN.filter.install()
    packet, ancillary, _, _ = channel.recvmsg(
        SIGN_HEADER_LENGTH + MAX_PAYLOAD, socket.CMSG_LEN(_DESCRIPTOR.size)
    )
    if not packet:
        os._exit(UNUSED)
    signal.alarm(_SECONDS)
    [(_, _, descriptor)] = ancillary
    [answer] = _DESCRIPTOR.unpack(descriptor)
    os.write(answer, _sign(packet, sealing, sealed))
    # By itself this would come late, after the memory's end: the front waits for it.
    os.close(answer)
    os._exit(0)


def _sign(packet: bytes, sealing: Keyring, sealed: Shelf) -> bytes:
    """The packed answer."""
    try:
        job = SignJob.unpack(packet)
        payload = _unsealed(job.description, sealing, sealed)
        return pack_signature(custody.sign(payload, job.algorithm, job.data))
    except KernelKeyError as error:
        return pack_answer(Refused(f"the sealed key can't be read: {error}"))
    except Exception as error:
        # Not its text: it could show values of the key.
        return pack_answer(Refused(f"the sealed key can't sign: {type(error).__name__}"))


def _unsealed(description: str, sealing: Keyring, sealed: Shelf) -> bytes:
    """The key as PKCS#8.  Raises KeyError if it is gone, KernelKeyError and ValueError."""
    return custody.unseal(sealing_key(sealing), description, sealed.entries()[description])
