"""Load workers: forked for one key, gone after it.

They read what a client sent, so all that they possess is an inbox, where they leave the key.  What
it may be used for goes to the front as a record, and the front has it held; or not, if this process
did not get to its end.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from .. import log
from ..custody import clock
from ..custody.device import NotTaken
from ..custody.identity import Custody, Identity, description_of
from ..custody.rings import POSSESSOR_ONLY, KeeperRings
from ..jobs.jobs import Answer, Job, Loaded, Refused, pack_answer
from ..jobs.policy import NotKept, Policy
from ..keyctl import PROCESS_KEYRING, KernelKeyError, Keyring
from ..private import pkcs8
from ..private.library import Refused as KeyRefused
from ..private.library import der, library_key, refuse
from ..private.verify import BadSignature, check_certificate
from ..protocol.messages import AddIdConstrained, AddIdentity, decode
from ..protocol.publickey import PublicKey
from ..protocol.wire import ProtocolError
from .errands import receive

# A client sends a key in one go; the rest of the time goes to the kernel's proof.  When it is up
# the kernel ends the worker, whatever it hangs in.
_SECONDS = 20


def run(
    job: Job,
    client: int,
    answer: int,
    number: int,
    rings: KeeperRings,
    inbox: Keyring,
    policy: Policy,
) -> NoReturn:
    """The life of a load worker, from after the fork to its end.

    Its exit code is 0 if the key is in the inbox: what a worker leaves that was stopped on its way
    is thrown away.
    """
    code = 1
    try:
        signal.alarm(_SECONDS)
        body = receive(client, job.body_length)
        if body is not None:
            told = _Load(number, rings, inbox, policy, bound=job.bound).carry_out(
                bytes((job.message_type,)) + body
            )
            os.write(answer, pack_answer(told))
            code = 0 if isinstance(told, Loaded) else 1
    except Exception as error:
        # Not the traceback: its lines could show values of the key.
        log.error(f"loader failed: {type(error).__name__}")
    finally:
        os._exit(code)


def turn_down(job: Job, client: int, answer: int, reason: str) -> NoReturn:
    """The life of a worker for a key that can't be taken: nobody else is to read it either."""
    try:
        signal.alarm(_SECONDS)
        if receive(client, job.body_length) is not None:
            os.write(answer, pack_answer(Refused(reason)))
    finally:
        os._exit(0)


class _Load:
    """One key, from the message to the inbox."""

    def __init__(
        self, number: int, rings: KeeperRings, inbox: Keyring, policy: Policy, *, bound: bool
    ) -> None:
        self._number = number
        self._sealed = rings.sealed
        self._devices = rings.devices
        self._inbox = inbox
        self._policy = policy
        self._bound = bound
        # It dies with this process: whatever ends that before the key is proved, and may be no more
        # than it should, nothing is left behind.
        self._own = Keyring.special(PROCESS_KEYRING, create=True)

    def carry_out(self, payload: bytes) -> Answer:
        """Hold the key that a request to add one carries."""
        try:
            message = decode(payload)
            if not isinstance(message, AddIdentity | AddIdConstrained):
                return Refused("not a request to add a key")
            return Loaded(self._number, self._leave(message))
        except ProtocolError as error:
            return Refused(f"malformed request: {error}")
        except BadSignature as error:
            return Refused(f"not a valid certificate: {error}")
        except (KeyRefused, NotKept, NotTaken) as error:
            return Refused(str(error))
        except KernelKeyError as error:
            return Refused(f"the kernel doesn't hold the key: {error}")

    def _leave(self, message: AddIdentity | AddIdConstrained) -> Identity:
        asked = message.constraints
        constraints = self._policy.constraints(asked)
        custody = self._policy.custody_for(asked)
        blob = message.key.public_blob
        check_certificate(PublicKey.parse(blob))
        description = description_of(blob)
        identity = Identity(blob, message.comment, Custody.SEALED, "asked for", constraints)
        if identity.lifetime:
            deadline = clock.now() + identity.lifetime * clock.SECOND
            identity = identity.replace(deadline=deadline)
        device = self._policy.providers.take(message.key, asked, from_remote=self._bound)
        if device is not None:
            if custody is not None:
                refuse(f"a FIDO key can't be held in custody {custody}")
            self._inbox.link(self._devices.add(description, device.write(), self._own))
            return identity.replace(custody=Custody.DEVICE, why="")
        key = library_key(message.key)
        if custody is not Custody.SEALED:
            try:
                held = pkcs8.load(key, message.key.type, description, self._own)
                if constraints:
                    held.set_permissions(POSSESSOR_ONLY)
                self._inbox.link(held)
                return identity.replace(custody=Custody.KERNEL, why="")
            except pkcs8.CannotSign as error:
                if custody is Custody.KERNEL:
                    refuse(str(error), error)
                identity = identity.replace(why=str(error))
        self._inbox.link(self._sealed.add(description, der(key), self._own))
        return identity
