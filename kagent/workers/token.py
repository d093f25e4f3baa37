"""Token processes: each talks to the tokens of one PKCS#11 provider, through OpenSSH's helper.

A load worker reads what a client sent, and leaves it in a socket: which provider, under which
constraints, and the PIN.  A token process takes it from there, so that neither front nor keeper
ever has the PIN.  It starts the helper before it reads any of that; from then on it computes, and
reads and writes what is open.  It believes the helper nothing: a signature is verified before it is
passed on.
"""

from __future__ import annotations

import os
import select
import socket
from typing import NamedTuple, NoReturn

from .. import log
from ..confine import memory
from ..confine.seccomp import CannotConfine
from ..custody.device import NotTaken
from ..custody.identity import Custody, Identity, description_of
from ..jobs import roles
from ..jobs.causes import Cause
from ..jobs.jobs import HEADER_LENGTH, Inserted, Job, Refused, Signed, pack_answer
from ..jobs.questions import TokenSignature
from ..jobs.sockets import given_up
from ..jobs.terms import Terms
from ..openssh.helpers import HelperError
from ..openssh.pkcs11helper import Broken, Helper, TooLong
from ..private.prepared import finish, prepare
from ..private.verify import BadSignature, verify
from ..protocol.constraints import CONSTRAINTS, Constraint
from ..protocol.messages import MAX_PAYLOAD, ListedKey
from ..protocol.publickey import PublicKey
from ..protocol.wire import (
    BOOLEAN,
    STRING,
    TEXT,
    ProtocolError,
    Record,
    field,
    nested,
    repeated,
)
from .errands import receive

# What a user can do where a token doesn't sign.
_AGAIN = "ssh-add -s loads its keys again"
_SIGNS_NOT = (
    "the token didn't sign: it was pulled out, wants its PIN again, or was not touched; " + _AGAIN
)


class Insertion(Record):
    """What a load worker leaves of a client's request, in a packet before the PIN's."""

    provider: str = field(TEXT)
    constraints: tuple[Constraint, ...] = field(nested(CONSTRAINTS))
    certificates_only: bool = field(BOOLEAN)
    certificates: tuple[bytes, ...] = field(nested(repeated(STRING)))

    def hand_over(self, pin: str, handover: socket.socket) -> None:
        """Leave it there, with the PIN behind it.  Raises OSError."""
        handover.send(self.write())
        # A byte before it, since an empty packet would be the socket's end.
        handover.send(b"\0" + pin.encode("utf-8", "surrogateescape"))


class Given(NamedTuple):
    """What such a process is given: descriptors, and what the agent was told.

    What a load has left comes from `handover`, and whether it is kept goes to `answer`; requests
    come from `control`.  `bound`: the client may be another host.
    """

    handover: socket.socket
    answer: int
    control: socket.socket
    bound: bool
    terms: Terms


def run(given: Given) -> NoReturn:
    """The life of a token process, from after the fork to its end."""
    code = 1
    try:
        if signer := _insert(given):
            _serve(given.control, signer)
        code = 0
    except CannotConfine as error:
        log.error(f"the {roles.TOKEN.title} can't be confined: {error}")
    except Broken as error:
        log.error(f"ssh-pkcs11-helper: {error}; the keys of its token don't sign: {_AGAIN}")
    except Exception as error:
        # Not its text: it could show something of a PIN.
        log.error(f"a token process failed: {type(error).__name__}")
    finally:
        os._exit(code)


def _insert(given: Given) -> Signer | None:
    """Have the helper load the provider, and tell the front which keys there are."""
    try:
        helper = Helper()
        roles.TOKEN.confine()
        insertion, pin = _handed_over(given.handover)
        # Once more: the load worker has read what a client sent, and may be somebody else's.
        provider = given.terms.providers.library(insertion.provider, from_remote=given.bound)
        keys = _usable(helper.insert(provider, pin))
        identities = _identities(insertion, provider, keys)
        if not identities:
            raise HelperError(f"{provider}: no certificate is for one of its keys")
    except (HelperError, NotTaken, ProtocolError) as error:
        by = "ssh-pkcs11-helper: " if isinstance(error, Broken) else ""
        os.write(given.answer, pack_answer(Refused.because(error, by)))
        return None
    os.write(given.answer, pack_answer(Inserted(provider, tuple(identities))))
    # The front waits for the end of it.
    os.close(given.answer)
    memory.unlock_memory()
    return Signer(helper, provider, {key.blob for key in keys})


def _handed_over(handover: socket.socket) -> tuple[Insertion, memoryview]:
    """What a load worker has left, and has ended: the PIN is to be overwritten.

    Raises ProtocolError.
    """
    with handover:
        packet = handover.recv(MAX_PAYLOAD, socket.MSG_DONTWAIT)
        # As long as any, so that no shorter copy is made of it.
        pin = memoryview(bytearray(MAX_PAYLOAD))
        pin = pin[: handover.recv_into(pin, 0, socket.MSG_DONTWAIT)]
    return Insertion.parse(packet), pin[1:]


def _usable(keys: tuple[ListedKey, ...]) -> list[ListedKey]:
    """Each once, and none of a type that isn't known."""
    usable: dict[bytes, ListedKey] = {}
    for key in keys:
        try:
            about = PublicKey.parse(key.blob)
        except ProtocolError as error:
            log.warning(f"a key of a token is passed over: {error}")
            continue
        if about.certificate is None and not about.about.on_token:
            usable.setdefault(key.blob, key)
    return list(usable.values())


def _identities(insertion: Insertion, provider: str, keys: list[ListedKey]) -> list[Identity]:
    """In ssh-agent's order: each key behind its certificates."""
    certificates = [PublicKey.parse(blob) for blob in dict.fromkeys(insertion.certificates)]
    identities = []
    for key in keys:
        blobs = [one.blob for one in certificates if one.plain_blob == key.blob]
        if not insertion.certificates_only:
            blobs.append(key.blob)
        for blob in blobs:
            identities.append(
                Identity(
                    blob, key.comment or provider, Custody.TOKEN, provider, insertion.constraints
                )
            )
    return identities


class Signer:
    """Has the token sign, and verifies its signatures."""

    def __init__(self, helper: Helper, provider: str, blobs: set[bytes]) -> None:
        self.helper = helper
        self.provider = provider
        self._blobs = blobs
        # Which of the two ways the helper knows, once one has led to a good signature.
        self._ways = [self._whole, self._prepared]

    def sign(self, request: TokenSignature) -> bytes:
        """A good signature as ssh sends it.  Raises HelperError and ProtocolError."""
        key = PublicKey.parse(request.blob)
        if key.plain_blob not in self._blobs:
            raise HelperError("the key is not one of this token's")
        fault = _SIGNS_NOT
        for way in tuple(self._ways):
            try:
                made = way(key.plain_blob, request)
            except TooLong as error:
                fault, made = str(error), None
            if made is None:
                continue
            try:
                if verify(key, made, request.data) == request.algorithm:
                    self._ways = [way]
                    return made
            except BadSignature:
                pass
            fault = "what the token gave is no signature by this key"
        raise HelperError(fault)

    def _whole(self, blob: bytes, request: TokenSignature) -> bytes | None:
        return self.helper.sign(blob, request.data, request.algorithm)

    def _prepared(self, blob: bytes, request: TokenSignature) -> bytes | None:
        prepared = prepare(request.algorithm, request.data)
        made = prepared and self.helper.sign_prepared(blob, prepared)
        try:
            return finish(request.algorithm, made) if made else None
        except ValueError:
            return made


def _serve(control: socket.socket, signer: Signer) -> None:
    """Sign what is asked for, until the keeper ends.  Raises Broken if the helper does."""
    asked = select.poll()
    for one in (control, signer.helper):
        asked.register(one, select.POLLIN)
    while True:
        ready = dict(asked.poll())
        if signer.helper.fileno() in ready:
            raise Broken(f"{signer.provider}: it has ended, or talks out of turn")
        header, descriptors, _, _ = socket.recv_fds(control, HEADER_LENGTH, 2)
        if not header:
            return
        [request, answer] = descriptors
        try:
            _answer(Job.unpack(header), request, answer, signer)
        finally:
            os.close(answer)


def _answer(job: Job, request: int, answer: int, signer: Signer) -> None:
    """Raises Broken, when it has told of it."""
    if given_up(answer):
        os.close(request)
        return
    broken = None
    try:
        body = receive(request, job.body_length)
        asked = TokenSignature.parse(body or b"")
        # The keeper has looked whether that is held, and not whether it is what is asked for.
        if description_of(asked.blob) != job.description:
            raise HelperError("the key is not held")
        told: Signed | Refused = Signed(signer.sign(asked))
    except Broken as error:
        broken = error
        told = Refused(Cause.TOKEN_GONE, f"ssh-pkcs11-helper: {error}; {_AGAIN}")
    except (HelperError, ProtocolError) as error:
        told = Refused.because(error, f"{signer.provider}: ")
    try:
        os.write(answer, pack_answer(told))
    except BrokenPipeError:
        pass  # nobody waits for it any more
    if broken:
        raise broken
