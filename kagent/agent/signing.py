"""A signature: whether it may be made, asking the user if need be, and making it."""

from __future__ import annotations

import time
from functools import partial

import trio

from .. import log
from ..custody import kernel
from ..custody.anchor import Held
from ..custody.identity import Custody
from ..custody.store import Store
from ..keeper.jobs import Answer, Done, Kind, Refused, Signed, SignJob
from ..keeper.questions import Binding, DeviceSignature, Origin, Purpose, Question, Who
from ..keyctl import (
    AsymmetricKey,
    KernelKeyError,
    KeyExpired,
    KeyNotFound,
    KeyRevoked,
    PermissionDenied,
)
from ..protocol.constraints import Confirm, ConfirmForwarded
from ..protocol.messages import SignFlags, SignRequest, SignResponse, encode
from ..protocol.publickey import PublicKey
from ..protocol.userauth import Login, SignedMessage, ToBeSigned, recognise
from ..protocol.wire import ProtocolError, Record
from .destinations import check_signature
from .fetching import Fetching
from .journal import Entry
from .peer import Peer, Refusal
from .sessions import NotPermitted
from .settings import Settings
from .signers import Signers
from .tally import Tally
from .workers import Workers

_SECONDS_TO_LOOK = 1.0  # at who asks; it takes milliseconds


class Signing:
    """Answers requests for signatures."""

    def __init__(
        self,
        store: Store,
        workers: Workers,
        fetching: Fetching,
        signers: Signers,
        settings: Settings,
        tally: Tally,
    ) -> None:
        self._store = store
        self._workers = workers
        self._fetching = fetching
        self._signers = signers
        self._fingerprint_hash = settings.fingerprint_hash
        self._web_safety = settings.web_safety
        self._tally = tally
        self._asking = trio.Lock()  # two windows at once would take the keyboard from each other

    async def answer(self, peer: Peer, request: SignRequest) -> bytes:
        """Sign, or say why not; what is left to be sent of the answer's frame.

        Raises Refusal, NotPermitted, ProtocolError, KernelKeyError.
        """
        entry = Entry(request.blob, forwarded=peer.sessions.forwarded)
        # First, since many a client ends as soon as it has what it wants.
        await self._look(peer)
        try:
            frame = await self._answer(peer, request, entry)
            self._tally.signatures += 1
            return frame
        except (Refusal, NotPermitted, ProtocolError, KernelKeyError) as error:
            entry.refusal = str(error)
            raise
        finally:
            entry.write(peer.origin)

    async def _look(self, peer: Peer) -> None:
        """See who asks, if that isn't known, and by which hosts' names."""
        # Without their certificates, which can be long.
        hosts = tuple(session.host.plain_blob for session in peer.sessions.bound)
        if peer.origin is None or len(peer.origin.hosts) != len(hosts):
            peer.origin = None
            question = Who(peer.process, hosts)
            try:
                with trio.move_on_after(_SECONDS_TO_LOOK):
                    answer = await self._workers.look(question)
                    peer.origin = answer if isinstance(answer, Origin) else None
            except OSError as error:
                log.error(f"who asks can't be told: {error}")

    async def _answer(self, peer: Peer, request: SignRequest, entry: Entry) -> bytes:
        held = await self._find(request.blob)
        entry.identity = held.identity
        entry.algorithm = algorithm = _signature_algorithm(request.blob, request.flags)
        signed = recognise(request.data, request.blob)
        if isinstance(signed, Login):
            entry.user = signed.user
        check_signature(held.identity, peer.sessions, signed, time.time())
        if self._must_ask(held, peer):
            await self._confirm(held, peer, signed)
            # The user may have taken a while.
            held = await self._find_again(held)
        if held.identity.custody is Custody.DEVICE:
            return await self._sign_with_device(held, peer, request, signed)
        if held.key is not None:
            return await self._sign_in_kernel(held, held.key, peer, algorithm, request.data)
        answer = await self._workers.sign(
            SignJob(held.identity.description, algorithm, request.data)
        )
        return encode(SignResponse(_signature(answer)))

    async def _find(self, blob: bytes) -> Held:
        held = self._store.find(blob) or self._fetching.held(blob)
        if held is None:
            held = await trio.to_thread.run_sync(self._store.find_adopted, blob)
        return held or await self._fetching.fetch(blob)

    async def _find_again(self, before: Held) -> Held:
        now = await self._find(before.identity.blob)
        if now.identity.constraints != before.identity.constraints:
            raise Refusal("the key was loaded again meanwhile, under other constraints")
        return now

    async def _sign_in_kernel(
        self, held: Held, key: AsymmetricKey, peer: Peer, algorithm: str, data: bytes
    ) -> bytes:
        try:
            return await self._signers.answer(peer.client, partial(_frame, key, algorithm, data))
        except (KeyNotFound, KeyExpired, KeyRevoked, PermissionDenied):
            # Loading a key again replaces it, which may have happened since it was looked up: it
            # is gone then, or just not possessed any more.  A fetched one has its time.
            self._fetching.drop(held)
            again = (await self._find_again(held)).key
            if again is None:
                raise
            return await self._signers.answer(peer.client, partial(_frame, again, algorithm, data))

    async def _sign_with_device(
        self, held: Held, peer: Peer, request: SignRequest, signed: ToBeSigned | None
    ) -> bytes:
        if signed is None and self._web_safety.demands_ssh(PublicKey.parse(request.blob)):
            raise Refusal("web-origin key attempting to sign non-SSH message")
        question = self._question(held, peer, signed)
        answer = await self._ask(
            Kind.DEVICE, DeviceSignature(request.blob, request.data, question), peer
        )
        return encode(SignResponse(_signature(answer)))

    def _must_ask(self, held: Held, peer: Peer) -> bool:
        for constraint in held.identity.constraints:
            if isinstance(constraint, Confirm):
                return True
            if isinstance(constraint, ConfirmForwarded) and peer.sessions.forwarded:
                return True
        return False

    async def _confirm(self, held: Held, peer: Peer, signed: ToBeSigned | None) -> None:
        answer = await self._ask(Kind.CONFIRM, self._question(held, peer, signed), peer)
        if not isinstance(answer, Done):
            raise Refusal(answer.reason if isinstance(answer, Refused) else "nobody could be asked")

    async def _ask(self, kind: Kind, request: Record, peer: Peer) -> Answer | None:
        self._tally.pending += 1
        try:
            async with self._asking:
                return await self._workers.ask_user(kind, request, peer.client)
        finally:
            self._tally.pending -= 1

    def _question(self, held: Held, peer: Peer, signed: ToBeSigned | None) -> Question:
        purpose, name = Purpose.UNKNOWN, ""
        match signed:
            case Login(_, user, _):
                purpose, name = Purpose.LOGIN, user
            case SignedMessage(namespace):
                purpose, name = Purpose.SSHSIG, namespace
        return Question(
            held.identity.comment,
            PublicKey.parse(held.identity.blob).fingerprint(self._fingerprint_hash),
            peer.process,
            tuple(
                Binding(session.host.plain_blob, session.forwarded)
                for session in peer.sessions.way(signed)
            ),
            purpose,
            name,
        )


def _frame(key: AsymmetricKey, algorithm: str, data: bytes) -> bytes:
    """The answer with the signature; for any thread."""
    return encode(SignResponse(kernel.sign(key, algorithm, data)))


def _signature(answer: Answer | None) -> bytes:
    if isinstance(answer, Signed):
        return answer.signature
    raise Refusal(answer.reason if isinstance(answer, Refused) else "the sign worker died")


def _signature_algorithm(blob: bytes, flags: int) -> str:
    """RFC 9987 section 3.6.1; both flags at once mean SHA-256, as in ssh-agent."""
    key_type = PublicKey.parse(blob).plain_type
    unknown = flags & ~int(SignFlags.RSA_SHA2_256 | SignFlags.RSA_SHA2_512)
    if unknown:
        raise Refusal(f"unknown signature flags {unknown:#x}")
    if key_type == "ssh-rsa" and flags & SignFlags.RSA_SHA2_256:
        return "rsa-sha2-256"
    if key_type == "ssh-rsa" and flags & SignFlags.RSA_SHA2_512:
        return "rsa-sha2-512"
    return key_type
