"""One-shot sign workers: forked ahead of need, each makes one signature with a sealed key and ends.

What is to be signed is opaque here, so no client's structure is ever parsed where a sealed key is.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from .. import confine
from ..custody import sealed as custody
from ..custody.identity import description_of
from ..keyctl import KernelKeyError, Keyring
from ..protocol.messages import MAX_PAYLOAD
from .jobs import SIGN_HEADER_LENGTH, Answer, Refused, Signed, SignJob, pack_answer

_SECONDS = 20  # a 16384-bit RSA signature takes one or two


def run(channel: int, sealed: Keyring) -> NoReturn:
    """The life of a sign worker, from after the fork to its end."""
    confine.forbid_new_privileges()
    confine.lock_memory()
    with socket.socket(fileno=channel) as stream:
        packet, descriptors, _, _ = socket.recv_fds(stream, SIGN_HEADER_LENGTH + MAX_PAYLOAD, 1)
        if not packet:
            os._exit(0)  # the front is gone
        signal.alarm(_SECONDS)
        [answer] = descriptors
        os.write(answer, pack_answer(_sign(packet, sealed)))
    os._exit(0)


def _sign(packet: bytes, sealed: Keyring) -> Answer:
    try:
        job = SignJob.unpack(packet)
        key = custody.find(description_of(job.digest), sealed)
        if key is None:
            return Refused("the sealed key is gone")
        return Signed(custody.sign(key.read(), job.algorithm, job.data))
    except KernelKeyError as error:
        return Refused(f"the kernel refused: {error}")
    except Exception as error:
        # Not its text: it could show values of the key.
        return Refused(f"the sealed key can't sign: {type(error).__name__}")
