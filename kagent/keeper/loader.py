"""Load workers: forked for one key, gone after it.  They read what a client sent, so they are given
no more than the front has, and an inbox for what is to be sealed."""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from .. import confine, log
from ..confine import profiles
from ..custody import pkcs8
from ..custody.anchor import Anchor
from ..custody.device import NotTaken
from ..custody.identity import Custody, Identity, description_of
from ..custody.private import Refused as KeyRefused
from ..custody.private import der, library_key, refuse
from ..custody.rings import KeeperRings
from ..custody.store import Store
from ..keyctl import PROCESS_KEYRING, KernelKeyError, Keyring
from ..protocol.constraints import RestrictDestination
from ..protocol.messages import AddIdConstrained, AddIdentity, decode
from ..protocol.wire import ProtocolError
from .jobs import Answer, Job, Loaded, Refused, pack_answer
from .policy import NotKept, Policy

# A client sends a key in one go; the rest of the time goes to the kernel's proof.  When it is up
# the kernel ends the worker, whatever it hangs in.
_SECONDS = 20

# Compiled by the keeper, for all its forks.
_FILTER = profiles.load_worker()


def run(
    job: Job, client: int, answer: int, rings: KeeperRings, inbox: Keyring, policy: Policy
) -> NoReturn:
    """The life of a load worker, from after the fork to its end."""
    try:
        signal.alarm(_SECONDS)
        if not confine.lock_memory():
            log.debug("RLIMIT_MEMLOCK is too small to keep all of the loader out of swap")
        if job.locked:
            turn_down(job, client, answer, "the agent is locked")
        try:
            rings.shared.enter(inbox)
        except KernelKeyError as error:
            turn_down(job, client, answer, f"no keyring for it: {error}")
        _FILTER.install()
        body = receive(client, job.body_length)
        if body is not None:
            loading = _Load(rings, inbox, policy, bound=job.bound)
            os.write(answer, pack_answer(loading.carry_out(bytes((job.message_type,)) + body)))
    except Exception as error:
        # Not the traceback: its lines could show values of the key.
        log.error(f"loader failed: {type(error).__name__}")
    finally:
        os._exit(0)


def turn_down(job: Job, client: int, answer: int, reason: str) -> NoReturn:
    """The life of a worker for a key that can't be taken: nobody else is to read it either."""
    try:
        signal.alarm(_SECONDS)
        _FILTER.install()
        if receive(client, job.body_length) is not None:
            os.write(answer, pack_answer(Refused(reason)))
    finally:
        os._exit(0)


def receive(client: int, length: int) -> bytes | None:
    """A request's body, and nothing behind it; None if the client went away."""
    with socket.socket(fileno=client) as stream:
        stream.settimeout(_SECONDS)
        received = bytearray()
        while len(received) < length:
            chunk = stream.recv(length - len(received))
            if not chunk:
                return None
            received += chunk
        return bytes(received)


class _Load:
    """One key, from the message to where it is held."""

    def __init__(self, rings: KeeperRings, inbox: Keyring, policy: Policy, *, bound: bool) -> None:
        self._store = Store(rings.shared)
        self._sealed = rings.sealed
        self._inbox = inbox
        self._policy = policy
        self._bound = bound

    def carry_out(self, payload: bytes) -> Answer:
        """Hold the key that a request to add one carries."""
        try:
            message = decode(payload)
            if not isinstance(message, AddIdentity | AddIdConstrained):
                return Refused("not a request to add a key")
            return Loaded(self._hold(message))
        except ProtocolError as error:
            return Refused(f"malformed request: {error}")
        except (KeyRefused, NotKept, NotTaken) as error:
            return Refused(str(error))
        except KernelKeyError as error:
            return Refused(f"the kernel doesn't hold the key: {error}")

    def _hold(self, message: AddIdentity | AddIdConstrained) -> Identity:
        asked = message.constraints if isinstance(message, AddIdConstrained) else ()
        constraints = self._policy.constraints(asked)
        custody = self._policy.custody_for(asked)
        blob = message.key.public_blob
        self._check_visible(blob)
        device = self._policy.providers.take(message.key, asked, from_remote=self._bound)
        if device is not None:
            if custody is not None:
                refuse(f"a FIDO key can't be held in custody {custody}")
            identity = Identity(blob, message.comment, Custody.DEVICE, "", constraints)
            return self._seal(identity, device.write())
        key = library_key(message.key)
        description = description_of(blob)
        why = "asked for"
        if custody is not Custody.SEALED:
            try:
                # The process keyring dies with this process: whatever ends it before the key is
                # proved and recorded, no key is left behind.
                own = Keyring.special(PROCESS_KEYRING, create=True)
                held = pkcs8.load(key, message.key.type, description, own)
                identity = Identity(blob, message.comment, Custody.KERNEL, "", constraints)
                return self._store.hold(identity, held)
            except pkcs8.CannotSign as error:
                if custody is Custody.KERNEL:
                    refuse(str(error), error)
                why = str(error)
        return self._seal(
            Identity(blob, message.comment, Custody.SEALED, why, constraints), der(key)
        )

    def _seal(self, unplaced: Identity, payload: bytes) -> Identity:
        identity = self._store.placed(unplaced)
        key = self._sealed.add(identity.description, payload, self._inbox)
        Anchor(self._inbox).record(identity)
        if identity.lifetime:
            key.set_timeout(identity.lifetime)
        return identity

    def _check_visible(self, blob: bytes) -> None:
        # ssh-agent lets a host that can't see a key not change it either.
        held = self._store.find(blob) if self._bound else None
        if held and any(isinstance(one, RestrictDestination) for one in held.identity.constraints):
            refuse("the key is held already, for some hosts only, and can't be changed from afar")
