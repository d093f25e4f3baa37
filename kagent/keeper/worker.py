"""One-shot workers: forked for one job, gone after it.  The only place that sees a private key."""

from __future__ import annotations

import os
import signal
import socket

from .. import confine, log
from ..custody import kernel
from ..custody.anchor import Anchor, Identity, description_of
from ..custody.pkcs8 import Refused as CustodyRefused
from ..custody.pkcs8 import load
from ..keyctl import PROCESS_KEYRING, KernelKeyError, Keyring
from ..protocol.messages import AddIdConstrained, AddIdentity, decode
from ..protocol.wire import ProtocolError
from .jobs import Answer, Job, Loaded, Refused, pack_answer

# A client sends a key in one go; the rest of the time goes to the kernel's proof.  When it is up
# the kernel ends the worker, whatever it hangs in.
_SECONDS = 20


def run(job: Job, client: int, answer: int) -> None:
    """The life of a worker, from after the fork to its end.  Never returns to the keeper."""
    try:
        signal.alarm(_SECONDS)
        confine.forbid_new_privileges()
        if not confine.lock_memory():
            log.debug("RLIMIT_MEMLOCK is too small to keep the loader out of swap")
        body = _receive(client, job.body_length)
        if body is not None:
            os.write(answer, pack_answer(_load(bytes((job.message_type,)) + body)))
    except Exception as error:
        # Not the traceback: its lines could show values of the key.
        log.error(f"loader failed: {type(error).__name__}")
    finally:
        os._exit(0)


def _receive(client: int, length: int) -> bytes | None:
    """The request's body, and nothing behind it; None if the client went away."""
    with socket.socket(fileno=client) as stream:
        stream.settimeout(_SECONDS)
        received = bytearray()
        while len(received) < length:
            chunk = stream.recv(length - len(received))
            if not chunk:
                return None
            received += chunk
        return bytes(received)


def _load(payload: bytes) -> Answer:
    try:
        message = decode(payload)
    except ProtocolError as error:
        return Refused(f"malformed request: {error}")
    if not isinstance(message, AddIdentity | AddIdConstrained):
        return Refused("not a request to add a key")
    if isinstance(message, AddIdConstrained) and message.constraints:
        names = ", ".join(type(constraint).__name__ for constraint in message.constraints)
        return Refused(f"constraints are not supported yet: {names}")
    try:
        # The process keyring dies with this process: whatever ends it before the key is proved
        # and recorded, no key is left behind.
        own = Keyring.special(PROCESS_KEYRING, create=True)
        blob = message.key.public_blob
        key = load(message.key, description_of(blob), own)
        identity = Identity(blob, message.comment, kernel.NAME)
        Anchor.find_or_create().hold(identity, key)
    except CustodyRefused as error:
        return Refused(str(error))
    except KernelKeyError as error:
        return Refused(f"the kernel doesn't hold the key: {error}")
    return Loaded(identity)
