"""What each request does: check, do, answer.  A handler a message."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from .. import log
from ..custody import kernel
from ..custody.anchor import Anchor
from ..keeper.jobs import Loaded, Refused
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
from .loader import Loader
from .signers import Signers


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

    def __init__(self, loader: Loader, signers: Signers) -> None:
        self._loader = loader
        self._signers = signers

    async def add(self, peer: Peer, message_type: int, body_length: int) -> Message | None:
        """ADD_IDENTITY and ADD_ID_CONSTRAINED, whose bodies a worker reads.

        None if the connection is out of step with its client and must end.
        """
        answer = await self._loader.load(peer.client, message_type, body_length)
        if isinstance(answer, Loaded):
            identity = answer.identity
            fingerprint = PublicKey.parse(identity.blob).fingerprint()
            peer.explanation = f"{fingerprint} is held in custody {identity.custody!r}"
            log.info(f"holding {fingerprint} {identity.comment} ({identity.custody})")
            return Success()
        if isinstance(answer, Refused):
            return peer.refuse(answer.reason)
        peer.refuse("the key could not be read: the client stalled, or the loader died")
        return None

    async def answer(self, peer: Peer, payload: bytes) -> bytes:
        """Every other request; what is left to be sent of the answer's frame."""
        try:
            message = decode(payload)
            if isinstance(message, SignRequest):
                return await self._signers.answer(peer.client, _signature(message))
            return encode(self._carry_out(peer, message))
        except (Refusal, ProtocolError) as error:
            return encode(peer.refuse(str(error)))
        except KernelKeyError as error:
            return encode(peer.refuse(f"the kernel refused: {error}"))

    def _carry_out(self, peer: Peer, message: Message) -> Message:
        match message:
            case RequestIdentities():
                return _list()
            case RemoveIdentity(blob):
                return _remove(blob)
            case RemoveAllIdentities() | RemoveAllRsaIdentities():
                return _remove_all()
            case Extension("explain@kagent"):
                return ExtensionResponse(EXPLAIN, TEXT.write(peer.explanation))
            case Extension(name):
                raise Refusal(f"unknown extension {name[:64]!r}")
            case _:
                raise Refusal(f"{message.type.name} is not supported yet")


def _list() -> Message:
    anchor = Anchor.find()
    held = anchor.identities() if anchor else []
    return IdentitiesAnswer(tuple(Identity(one.blob, one.comment) for one in held))


def _signature(request: SignRequest) -> Callable[[], bytes]:
    """Decide about a signature; what is returned makes it and its frame, in any thread."""
    algorithm = _signature_algorithm(request.blob, request.flags)
    key = _key(request.blob)

    def sign() -> bytes:
        try:
            signature = kernel.sign(key, algorithm, request.data)
        except (KeyNotFound, PermissionDenied):
            # Loading a key again replaces it, which may have happened since it was looked up: it
            # is gone then, or just not possessed any more.
            signature = kernel.sign(_key(request.blob), algorithm, request.data)
        return encode(SignResponse(signature))

    return sign


def _key(blob: bytes) -> AsymmetricKey:
    anchor = Anchor.find()
    found = anchor.identity(blob) if anchor else None
    if found is None:
        raise Refusal("no such key")
    return found[1]


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


def _remove(blob: bytes) -> Message:
    anchor = Anchor.find()
    if anchor is None or not anchor.remove(blob):
        raise Refusal("no such key")
    log.info("a key was removed")
    return Success()


def _remove_all() -> Message:
    anchor = Anchor.find()
    if anchor is not None:
        anchor.remove_all()
    log.info("all keys were removed")
    return Success()
