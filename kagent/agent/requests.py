"""What each request does: check, do, answer.  A handler a message."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import lru_cache, partial

from .. import log
from ..custody import kernel
from ..custody.anchor import Held
from ..custody.identity import Custody, description_of
from ..custody.store import Store
from ..keeper.jobs import Loaded, Refused, Signed, SignJob
from ..keyctl import AsymmetricKey, KernelKeyError, KeyNotFound, PermissionDenied
from ..protocol.messages import (
    EXPLAIN,
    Extension,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Identity,
    Message,
    RemoveAllIdentities,
    RemoveAllRsaIdentities,
    RemoveIdentity,
    RequestIdentities,
    SignFlags,
    SignRequest,
    SignResponse,
    Success,
    decode,
    encode,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import TEXT, ProtocolError
from .signers import Signers
from .workers import Workers


class Refusal(Exception):
    """The request is answered with FAILURE; the text goes to the log and to who asks."""


@dataclass
class Peer:
    """A client, and what is remembered of it as long as it is connected."""

    client: socket.socket
    explanation: str = ""

    def refuse(self, reason: str) -> Failure:
        """Keep the reason, and answer with FAILURE."""
        self.explanation = reason
        log.warning(f"refused: {reason}")
        return Failure()


class Requests:
    """Answers the requests of all clients."""

    def __init__(self, store: Store, workers: Workers, signers: Signers) -> None:
        self._store = store
        self._workers = workers
        self._signers = signers

    async def add(self, peer: Peer, message_type: int, body_length: int) -> Message | None:
        """ADD_IDENTITY and ADD_ID_CONSTRAINED, whose bodies a worker reads.

        None if the connection is out of step with its client and must end.
        """
        answer = await self._workers.load(peer.client, message_type, body_length)
        if isinstance(answer, Refused):
            return peer.refuse(answer.reason)
        if not isinstance(answer, Loaded):
            peer.refuse("the key could not be read: the client stalled, or the loader died")
            return None
        identity = answer.identity
        try:
            if not self._store.settle(identity):
                return peer.refuse("the key could not be sealed")
            if identity.custody is Custody.KERNEL:
                await self._workers.forget(identity.description)
        except (KernelKeyError, ProtocolError) as error:
            return peer.refuse(f"the key is not held as it should be: {error}")
        fingerprint = PublicKey.parse(identity.blob).fingerprint()
        held = f"{identity.custody} ({identity.why})" if identity.why else str(identity.custody)
        peer.explanation = f"{fingerprint} is held in custody {held}"
        log.info(f"holding {fingerprint} {identity.comment}, custody {held}")
        return Success()

    async def answer(self, peer: Peer, payload: bytes) -> bytes:
        """Every other request; what is left to be sent of the answer's frame."""
        try:
            message = decode(payload)
            if isinstance(message, SignRequest):
                return await self._sign(peer, message)
            return encode(await self._carry_out(peer, message))
        except (Refusal, ProtocolError) as error:
            return encode(peer.refuse(str(error)))
        except KernelKeyError as error:
            return encode(peer.refuse(f"the kernel refused: {error}"))

    async def _carry_out(self, peer: Peer, message: Message) -> Message:
        match message:
            case RequestIdentities():
                held = self._store.identities()
                return IdentitiesAnswer(tuple(Identity(one.blob, one.comment) for one in held))
            case RemoveIdentity(blob):
                return await self._remove(blob)
            case RemoveAllIdentities() | RemoveAllRsaIdentities():
                return await self._remove_all()
            case Extension("explain@kagent"):
                return ExtensionResponse(EXPLAIN, TEXT.write(peer.explanation))
            case Extension(name):
                raise Refusal(f"unknown extension {name[:64]!r}")
            case _:
                raise Refusal(f"{message.type.name} is not supported yet")

    async def _sign(self, peer: Peer, request: SignRequest) -> bytes:
        algorithm = _signature_algorithm(request.blob, request.flags)
        held = self._held(request.blob)
        if held.key is not None:
            return await self._signers.answer(
                peer.client, partial(self._sign_in_kernel, held.key, algorithm, request)
            )
        job = SignJob(description_of(request.blob), algorithm, request.data)
        answer = await self._workers.sign(job)
        if isinstance(answer, Signed):
            return encode(SignResponse(answer.signature))
        raise Refusal(answer.reason if isinstance(answer, Refused) else "the sign worker died")

    def _sign_in_kernel(self, key: AsymmetricKey, algorithm: str, request: SignRequest) -> bytes:
        """The frame with the signature; for any thread."""
        try:
            signature = kernel.sign(key, algorithm, request.data)
        except (KeyNotFound, PermissionDenied):
            # Loading a key again replaces it, which may have happened since it was looked up: it
            # is gone then, or just not possessed any more.
            again = self._held(request.blob).key
            if again is None:
                raise
            signature = kernel.sign(again, algorithm, request.data)
        return encode(SignResponse(signature))

    def _held(self, blob: bytes) -> Held:
        held = self._store.find(blob)
        if held is None:
            raise Refusal("no such key")
        return held

    async def _remove(self, blob: bytes) -> Message:
        if self._store.remove(blob) is None:
            raise Refusal("no such key")
        await self._workers.forget(description_of(blob))
        log.info("a key was removed")
        return Success()

    async def _remove_all(self) -> Message:
        self._store.remove_all()
        await self._workers.forget_all()
        log.info("all keys were removed")
        return Success()


@lru_cache
def _signature_algorithm(blob: bytes, flags: int) -> str:
    """RFC 9987 section 3.6.1; both flags at once mean SHA-256, as in ssh-agent."""
    key_type = PublicKey.parse(blob).plain_type
    unknown = flags & ~(SignFlags.RSA_SHA2_256 | SignFlags.RSA_SHA2_512)
    if unknown:
        raise Refusal(f"unknown signature flags {unknown:#x}")
    if key_type == "ssh-rsa" and flags & SignFlags.RSA_SHA2_256:
        return "rsa-sha2-256"
    if key_type == "ssh-rsa" and flags & SignFlags.RSA_SHA2_512:
        return "rsa-sha2-512"
    return key_type
