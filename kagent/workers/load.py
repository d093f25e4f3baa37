"""Load workers: forked for one key, gone after it.

They read what a client sent, so all that they possess is an inbox, where they leave the key if the
kernel signs with it.  One to be sealed, or a token's handle or PIN, goes through a socket of which
the keeper has the other end.  What it may be used for goes to the front as a record, and the front
has it held; or not, if this process did not get to its end.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from .. import log
from ..custody.device import NotTaken
from ..custody.identity import Custody, Identity, description_of
from ..custody.kernel import why_not
from ..custody.rings import POSSESSOR_ONLY
from ..jobs.causes import Cause, cause_of
from ..jobs.jobs import (
    LEFT,
    LONGEST_KEY,
    Answer,
    Job,
    Kind,
    Loaded,
    Refused,
    Removal,
    pack_answer,
)
from ..jobs.terms import NotKept, Terms
from ..keyctl import KernelKeyError, Keyring, QuotaExceeded, with_patience
from ..private import pkcs8
from ..private.library import KeyRefused, LibraryKey, der, library_key, refuse
from ..private.verify import BadSignature, CannotVerify, check_certificate, check_usable
from ..protocol.constraints import AssociatedCertificates, Constraint, RestrictDestination
from ..protocol.messages import (
    AddIdConstrained,
    AddIdentity,
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    Message,
    RemoveSmartcardKey,
    decode,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import ProtocolError
from . import opening
from .errands import receive
from .token import Insertion

# A client sends a key in one go; the rest of the time goes to the kernel's proof.  When it is up
# the kernel ends the worker, whatever it hangs in.
_SECONDS = 20
# A passphrase takes as long as the rounds of its key derivation say: ssh-keygen -a.
_SECONDS_TO_OPEN = 45

_CROWDED = "your quota of kernel keys is used but for a quarter, which is left to other programs"


class Way(NamedTuple):
    """Where a load worker leaves a key: in `inbox` if the kernel signs, or else in `handover`.

    Without `room`, which is a quarter of the user's quota, a key that may be sealed is.
    """

    inbox: Keyring | None
    handover: socket.socket
    room: bool


def run(
    job: Job,
    client: int,
    answer: int,
    way: Way,
    terms: Terms,
) -> NoReturn:
    """The life of a load worker, from after the fork to its end.

    Its exit code is one of LEFT if it got there: what a worker leaves that was stopped on its way
    is thrown away.
    """
    code = 1
    try:
        signal.alarm(_SECONDS)
        if (read := _reading(job, client)) is not None:
            told = _Loading(way, terms, bound=job.bound).carry_out(read)
            if told is None:
                code = LEFT[Custody.TOKEN]
            else:
                os.write(answer, pack_answer(told))
                code = LEFT[told.identity.custody] if isinstance(told, Loaded) else 1
    except Exception as error:
        # Not the traceback: its lines could show values of the key.
        log.error(f"loader failed: {type(error).__name__}")
    finally:
        os._exit(code)


def _reading(job: Job, client: int) -> Callable[[], Message] | None:
    """What reads the request that came; None if it didn't."""
    if job.kind is Kind.SOURCE:
        signal.alarm(_SECONDS_TO_OPEN)
        left = opening.received(client)
        return lambda: opening.opened(opening.Material.parse(left))
    body = receive(client, job.body_length)
    return None if body is None else lambda: decode(bytes((job.message_type,)) + body)


def turn_down(job: Job, client: int, answer: int, cause: Cause, reason: str) -> NoReturn:
    """The life of a worker for a key that can't be taken: nobody else is to read it either."""
    try:
        signal.alarm(_SECONDS)
        if receive(client, job.body_length) is not None:
            os.write(answer, pack_answer(Refused(cause, reason)))
    finally:
        os._exit(0)


class _Loading:
    """One key, from the message to the inbox."""

    def __init__(self, way: Way, terms: Terms, *, bound: bool) -> None:
        self._way = way
        self._terms = terms
        self._bound = bound
        self._blob, self._comment = b"", ""

    def carry_out(self, read: Callable[[], Message]) -> Answer | None:
        """Hold the key that the request to add one carries that `read` gives.

        None for the keys of a token: the process that will talk to it answers.
        """
        try:
            message = read()
            match message:
                case AddIdentity() | AddIdConstrained():
                    self._blob, self._comment = message.key.public_blob, message.comment
                    return Loaded(self._leave(message))
                case AddSmartcardKey() | AddSmartcardKeyConstrained():
                    self._leave_pin(message)
                    return None
                case RemoveSmartcardKey():
                    # Of a library that was uninstalled meanwhile as far as it leads.
                    return Removal(os.path.realpath(message.provider))
                case _:
                    return Refused(Cause.MALFORMED, "not a request that a key or a PIN comes with")
        except ProtocolError as error:
            return self._refused(error, "malformed request: ")
        except BadSignature as error:
            return self._refused(error, "not a valid certificate: ", Cause.CERTIFICATE)
        except (KeyRefused, NotKept, NotTaken) as error:
            return self._refused(error)
        except KernelKeyError as error:
            return self._refused(error, "the kernel doesn't hold the key: ")

    def _refused(self, error: Exception, before: str = "", cause: Cause | None = None) -> Refused:
        return Refused(cause or cause_of(error), f"{before}{error}", self._blob, self._comment)

    def _leave(self, message: AddIdentity | AddIdConstrained) -> Identity:
        asked = message.constraints
        constraints = self._terms.constraints(asked)
        _check_hosts(constraints)
        custody = self._terms.custody_for(asked)
        blob = message.key.public_blob
        check_certificate(PublicKey.parse(blob))
        description = description_of(blob)
        identity = Identity(blob, message.comment, Custody.SEALED, "asked for", constraints)
        device = self._terms.providers.take(message.key, asked, from_remote=self._bound)
        if device is not None:
            if custody is not None:
                refuse(Cause.CUSTODY, f"a FIDO key can't be held in custody {custody}")
            self._hand_over(device.write())
            return identity.replace(custody=Custody.DEVICE, why="")
        key = library_key(message.key)
        if custody is not Custody.SEALED:
            try:
                self._have_the_kernel_sign(key, message.key.type, identity, forced=bool(custody))
                return identity.replace(custody=Custody.KERNEL, why="")
            except (pkcs8.CannotSign, QuotaExceeded) as error:
                crowded = isinstance(error, QuotaExceeded)
                if custody is Custody.KERNEL:
                    refuse(Cause.QUOTA if crowded else Cause.KERNEL_SIGNS_NOT, str(error), error)
                why = _CROWDED if crowded else str(error)
                identity = identity.replace(why=why)
        self._hand_over(description.encode() + der(key))
        return identity

    def _leave_pin(self, message: AddSmartcardKey | AddSmartcardKeyConstrained) -> None:
        asked = message.constraints
        constraints = self._terms.constraints(asked, of_token=True)
        _check_hosts(constraints)
        custody = self._terms.custody_for(asked)
        if custody is not None:
            refuse(Cause.CUSTODY, f"a token's keys can't be held in custody {custody}")
        provider = self._terms.providers.library(message.provider, from_remote=self._bound)
        only, certificates = False, []
        for one in asked:
            if isinstance(one, AssociatedCertificates):
                only = one.certificates_only
                certificates = [_checked_certificate(blob) for blob in one.certificates]
        blobs = tuple(one.blob for one in certificates if one.certificate)
        insertion = Insertion(provider, constraints, only, blobs)
        insertion.hand_over(message.pin, self._way.handover)

    def _have_the_kernel_sign(
        self, key: LibraryKey, kind: str, identity: Identity, *, forced: bool
    ) -> None:
        way, inbox = self._way, self._way.inbox
        if reason := why_not(PublicKey.parse(identity.blob)):
            raise pkcs8.CannotSign(reason)
        if inbox is None or not (way.room or forced):
            raise pkcs8.CannotSign(_CROWDED)
        # Whatever ends this process before the key is proved, and may be no more than it should:
        # the keeper throws away what is there then.
        held = with_patience(lambda: pkcs8.load(key, kind, identity.description, inbox))
        if identity.constraints:
            held.set_permissions(POSSESSOR_ONLY)

    def _hand_over(self, content: bytes) -> None:
        if len(content) > LONGEST_KEY:
            refuse(Cause.INVALID_KEY, "it is longer than any key")
        self._way.handover.send(content)


def _check_hosts(constraints: tuple[Constraint, ...]) -> None:
    """Check the host keys in destination constraints, as ssh-agent does.  Raises KeyRefused."""
    for one in constraints:
        for hop in one.hops if isinstance(one, RestrictDestination) else ():
            for host in (*hop.origin.keys, *hop.target.keys):
                _check_host(host.key)


def _check_host(key: PublicKey) -> None:
    if not key.known:
        return
    try:
        if key.certificate:
            check_certificate(key)
        else:
            check_usable(key)
    except CannotVerify:
        return  # as one of a type that isn't known: no host will have proved itself with it
    except BadSignature as error:
        refuse(Cause.CONSTRAINT, f"a host key in a destination constraint: {error}", error)


def _checked_certificate(blob: bytes) -> PublicKey:
    """A certificate for a token's key, or a plain key, which is passed over as ssh-agent does."""
    key = PublicKey.parse(blob)
    check_certificate(key)
    return key
