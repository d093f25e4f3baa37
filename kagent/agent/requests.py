"""What each request does: check, do, answer.  A handler a message."""

from __future__ import annotations

import time

import trio

from .. import log
from ..custody.identity import Custody, description_of
from ..custody.identity import Identity as HeldIdentity
from ..custody.store import Store
from ..keeper.jobs import Done, Kind, Loaded, Refused
from ..keyctl import KernelKeyError
from ..protocol import messages
from ..protocol.messages import (
    EXPLAIN,
    QUERY,
    SESSION_BIND,
    SHOW,
    STATUS,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    IdentitiesAnswer,
    Identity,
    Message,
    RemoveAllIdentities,
    RemoveAllRsaIdentities,
    RemoveIdentity,
    RequestIdentities,
    SessionBind,
    Shown,
    SignRequest,
    Success,
    Unlock,
    decode,
    encode,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import TEXT, ProtocolError
from ..text import quoted
from .destinations import check_visible
from .fetching import Fetching
from .lock import Lock
from .peer import Peer, Refusal
from .sessions import NotPermitted
from .settings import Settings
from .signing import Signing
from .tally import Tally
from .workers import Workers

_EXTENSIONS = (SESSION_BIND, EXPLAIN, SHOW, STATUS)


class Requests:
    """Answers the requests of all clients."""

    def __init__(
        self,
        store: Store,
        workers: Workers,
        fetching: Fetching,
        signing: Signing,
        lock: Lock,
        settings: Settings,
        tally: Tally,
    ) -> None:
        self._store = store
        self._workers = workers
        self._fetching = fetching
        self._signing = signing
        self._lock = lock
        self._idle_exit = settings.idle_exit
        self._tally = tally

    async def add(self, peer: Peer, message_type: int, body_length: int) -> Message | None:
        """ADD_IDENTITY and ADD_ID_CONSTRAINED, whose bodies a worker reads.

        None if the connection is out of step with its client and must end.
        """
        answer = await self._workers.load(
            peer.client,
            message_type,
            body_length,
            bound=peer.sessions.attempted,
            locked=self._lock.locked,
        )
        if isinstance(answer, Refused):
            return self._refuse(peer, answer.reason)
        if not isinstance(answer, Loaded):
            self._refuse(peer, "the key could not be read: the client stalled, or the loader died")
            return None
        identity = answer.identity
        try:
            if not self._store.settle(identity):
                return self._refuse(peer, "the key could not be sealed")
            if self._lock.locked:  # meanwhile
                self._store.withdraw()
            if identity.custody is Custody.KERNEL:
                await self._workers.forget(identity.description)
            if identity.constraints:
                # Else it could be used around them, and without them when its lifetime ends.
                await trio.to_thread.run_sync(self._store.adopted.remove, identity.blob)
        except (KernelKeyError, ProtocolError) as error:
            return self._refuse(peer, f"the key is not held as it should be: {error}")
        fingerprint = PublicKey.parse(identity.blob).fingerprint()
        held = f"{identity.custody} ({identity.why})" if identity.why else str(identity.custody)
        peer.explanation = f"{fingerprint} is held in custody {held}"
        log.info(f"holding {fingerprint} {quoted(identity.comment)}, custody {held}")
        return Success()

    async def answer(self, peer: Peer, payload: bytes) -> bytes:
        """Every other request; what is left to be sent of the answer's frame."""
        try:
            message = decode(payload)
            if isinstance(message, SignRequest) and not self._lock.locked:
                return await self._signing.answer(peer, message)
            return encode(await self._carry_out(peer, message))
        except (Refusal, NotPermitted, ProtocolError) as error:
            return encode(self._refuse(peer, str(error)))
        except KernelKeyError as error:
            return encode(self._refuse(peer, f"the kernel refused: {error}"))

    def _refuse(self, peer: Peer, reason: str) -> Message:
        self._tally.refused(reason)
        return peer.refuse(reason)

    async def _carry_out(self, peer: Peer, message: Message) -> Message:
        if self._lock.locked:
            return await self._carry_out_locked(peer, message)
        match message:
            case RequestIdentities():
                return await self._list(peer)
            case RemoveIdentity(blob):
                return await self._remove(peer, blob)
            case RemoveAllIdentities() | RemoveAllRsaIdentities():
                return await self._remove_all()
            case messages.Lock(passphrase):
                if not await self._lock.lock(passphrase):
                    raise Refusal("not locked: there must be a passphrase")
                log.info("locked")
                return Success()
            case Unlock():
                raise Refusal("the agent is not locked")
            case Extension():
                return await self._extension(peer, message)
            case _:
                raise Refusal(f"{message.type.name} is not supported")

    async def _carry_out_locked(self, peer: Peer, message: Message) -> Message:
        match message:
            case RequestIdentities():
                return IdentitiesAnswer(())
            case Unlock(passphrase):
                if not await self._lock.unlock(passphrase):
                    raise Refusal("wrong passphrase")
                log.info("unlocked")
                return Success()
            case Extension("session-bind@openssh.com" | "explain@kagent" | "status@kagent"):
                return await self._extension(peer, message)
            case _:
                raise Refusal("the agent is locked")

    async def _list(self, peer: Peer) -> Message:
        return IdentitiesAnswer(
            tuple(Identity(one.blob, one.comment) for one in await self._shown(peer))
        )

    async def _show(self, peer: Peer) -> Message:
        return ExtensionResponse(SHOW, b"".join([one.write() for one in await self._shown(peer)]))

    async def _shown(self, peer: Peer) -> list[Shown]:
        """What is held and may be seen here, and what is configured besides."""
        held = await trio.to_thread.run_sync(self._store.all)
        shown = [
            Shown(one.blob, one.comment, one.custody, one.why, one.constraints, one.expires)
            for one in held
            if _is_visible(one, peer)
        ]
        # What is held is asked for first, so that its constraints count.
        blobs = {one.blob for one in held}
        return shown + [one for one in await self._fetching.offered() if one.blob not in blobs]

    async def _remove(self, peer: Peer, blob: bytes) -> Message:
        held = self._store.find(blob)
        if held is None:
            held = await trio.to_thread.run_sync(self._store.find_adopted, blob)
        if held is None and any(one.blob == blob for one in await self._fetching.offered()):
            raise Refusal("the key is not loaded but configured: see kagent-provision(8)")
        if held is None:
            raise Refusal("no such key")
        check_visible(held.identity, peer.sessions, time.time())
        # First what signs: without its record, its constraints would be unknown.
        await self._workers.forget(description_of(blob))
        await trio.to_thread.run_sync(self._store.remove, blob)
        log.info("a key was removed")
        return Success()

    async def _remove_all(self) -> Message:
        await self._workers.forget_all()
        await trio.to_thread.run_sync(self._store.remove_all)
        log.info("all keys were removed")
        return Success()

    async def _extension(self, peer: Peer, request: Extension) -> Message:
        match request.name:
            case "explain@kagent":
                return ExtensionResponse(EXPLAIN, TEXT.write(peer.explanation))
            case "show@kagent":
                return await self._show(peer)
            case "status@kagent":
                return self._status(peer)
            case "query":
                return ExtensionResponse(QUERY, b"".join(map(TEXT.write, _EXTENSIONS)))
            case "session-bind@openssh.com":
                return await self._bind(peer, request.contents)
            case name:
                raise Refusal(f"unknown extension {name[:64]!r}")

    def _status(self, peer: Peer) -> Message:
        if peer.sessions.attempted:
            raise Refusal("how the agent is, is not told to other hosts")
        status = self._tally.status(
            locked=self._lock.locked,
            idle_exit=self._idle_exit,
            stays=self._store.ends_with_agent,
        )
        return ExtensionResponse(STATUS, status.write())

    async def _bind(self, peer: Peer, contents: bytes) -> Message:
        try:
            await peer.sessions.bind(contents, self._verify_bind)
        except (NotPermitted, ProtocolError) as error:
            self._refuse(peer, f"the session is not bound: {error}")
            return ExtensionFailure()
        return Success()

    async def _verify_bind(self, bind: SessionBind) -> None:
        answer = await self._workers.send_out(Kind.CHECK_BIND, bind)
        if not isinstance(answer, Done):
            raise NotPermitted(answer.reason if isinstance(answer, Refused) else "not checked")


def _is_visible(identity: HeldIdentity, peer: Peer) -> bool:
    try:
        check_visible(identity, peer.sessions, time.time())
    except NotPermitted as reason:
        log.debug(f"not listed: {reason}")
        return False
    return True
