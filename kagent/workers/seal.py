"""Seal workers: what a load worker has read of a key becomes ciphertext.

A process of its own: who reads what a client sent must not have what opens other keys, and who
lives on must not see this one.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from .. import log
from ..custody.identity import DESCRIPTION_LENGTH
from ..custody.rings import sealing_key
from ..jobs.jobs import LONGEST_KEY
from ..keyctl import Keyring
from ..private import sealed

_SECONDS = 20


def run(source: socket.socket, target: socket.socket, ring: Keyring) -> NoReturn:
    """The life of a seal worker, from after the fork to its end: from `source` to `target`."""
    code = 1
    try:
        signal.alarm(_SECONDS)
        brought = source.recv(DESCRIPTION_LENGTH + LONGEST_KEY)
        description, key = brought[:DESCRIPTION_LENGTH].decode(), brought[DESCRIPTION_LENGTH:]
        target.send(sealed.seal(sealing_key(ring), description, key))
        code = 0
    except Exception as error:
        log.error(f"a key can't be sealed: {type(error).__name__}")
    finally:
        os._exit(code)
