"""What each request does: check, do, answer.  A handler a message."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import trio

from .. import log
from ..custody import clock
from ..custody.identity import Custody, Identity, description_of
from ..custody.store import StillThere
from ..jobs.causes import Cause, cause_of
from ..jobs.jobs import Done, Inserted, Kind, Loaded, Refused, Removal
from ..keyctl import KernelKeyError
from ..protocol import messages
from ..protocol.messages import (
    EXPLAIN,
    MAX_PAYLOAD,
    QUERY,
    SESSION_BIND,
    SHOW,
    STATUS,
    VIA,
    WHY,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    ListedKey,
    Message,
    RemoveAllIdentities,
    RemoveAllRsaIdentities,
    RemoveIdentity,
    RequestIdentities,
    SessionBind,
    Shown,
    SignRequest,
    Success,
    Type,
    Unlock,
    decode,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import TEXT, ProtocolError
from ..text import quoted
from .desk import Desk
from .destinations import check_visible
from .holding import custody_told, faults_of, tell, why
from .peer import Peer, Refusal, RefusalFromAfar, refusal
from .sessions import NotPermitted
from .signature_log import HELP
from .signatures import Signing
from .turns import Turns

# Loads at once.  A key whose bytes are all there takes milliseconds; one that a client draws out
# has turns of its own, since there a few could keep everybody out.
_MOST_LOADS, _MOST_LOADS_EACH = 8, 2
_MOST_STALLING = 4
_MOST_INSERTIONS = 4  # of tokens, which take as long as the token and its user
_LOOKS = 20
_SECONDS_OF_A_LOOK = 0.02
_FITS = 96 * 1024  # bytes that a socket takes in before anybody reads: unix(7)

_ROOM_FOR_HEADERS = 64  # bytes

# Hosts' proofs at once.
_MOST_BINDS, _MOST_BINDS_EACH = 16, 4

_OF_KEYS = (Type.ADD_IDENTITY, Type.ADD_ID_CONSTRAINED)
# What a worker may say that it has read, by the type that this process has.
_BROUGHT = {
    **dict.fromkeys(_OF_KEYS, Loaded),
    **dict.fromkeys((Type.ADD_SMARTCARD_KEY, Type.ADD_SMARTCARD_KEY_CONSTRAINED), Inserted),
    Type.REMOVE_SMARTCARD_KEY: Removal,
}

_EXTENSIONS = (SESSION_BIND, EXPLAIN, SHOW, STATUS, VIA, WHY)


@dataclass
class _Asked:
    """What is known of a request that is refused: the name of message or extension, and the key."""

    request: str
    blob: bytes = b""
    comment: str = ""


class Requests:
    """Answers the requests of all clients."""

    def __init__(self, desk: Desk, signing: Signing) -> None:
        self._holding = desk.holding
        self._loading = Turns(_MOST_LOADS, _MOST_LOADS_EACH)
        self._stalling = Turns(_MOST_STALLING, 1)
        self._inserting = Turns(_MOST_INSERTIONS, 1)
        self._binding = Turns(_MOST_BINDS, _MOST_BINDS_EACH)
        self._store = desk.store
        self._lock = desk.lock
        self._workers = desk.workers
        self._fetching = desk.fetching
        self._behind = desk.behind
        self._hosts = desk.hosts
        self._certificates = desk.certificates
        self._idle_exit = desk.settings.idle_exit
        self._tally = desk.tally
        self._scanning = desk.scanning
        self._signing = signing

    async def add(self, peer: Peer, message_type: int, body_length: int) -> Message | None:
        """Requests with a key or a PIN, whose bodies a worker reads.

        None if the connection is out of step with its client and must end.
        """
        of_token = message_type not in _OF_KEYS
        turns = self._inserting if of_token else self._loading
        if not await _has_come(peer.client, body_length):
            turns = self._stalling
        async with turns.of(peer.process.pid):
            number = self._holding.new_number()
            asked = _Asked(Type(message_type).name)
            try:
                answer = await self._workers.load(
                    number,
                    peer.client,
                    message_type,
                    body_length,
                    bound=peer.sessions.attempted,
                    locked=self._lock.locked,
                    of_token=of_token,
                )
            except OSError as error:  # the keeper couldn't be asked
                why = f"the key could not be read: {error}"
                await self._refuse(peer, asked, cause_of(error), why)
                return None
            if not isinstance(answer, (_BROUGHT[Type(message_type)], Refused)):
                answer = None
            if not isinstance(answer, Loaded | Inserted):
                # Whatever a worker may have left that doesn't say so.
                await self._workers.drop(number)
            if isinstance(answer, Refused):
                asked.blob, asked.comment = answer.blob, answer.comment
                return await self._refuse(peer, asked, answer.cause, answer.reason)
            try:
                match answer:
                    case Loaded(loaded):
                        # Its time isn't for that worker to say: it has read what the client sent.
                        beginning = loaded.beginning(clock.now())
                        asked.blob, asked.comment = loaded.blob, loaded.comment
                        async with self._holding.changing:
                            identity = await self._holding.hold(peer, number, beginning)
                        peer.explanation = tell(identity)
                        if identity.constraints:
                            # The same key may have been held without, and be signing yet.
                            await self._signing.settled()
                    case Inserted():
                        peer.explanation = await self._hold_inserted(peer, number, answer)
                    case Removal(provider):
                        await self._remove_token(peer, provider)
                    case _:
                        why = "the key could not be read: the client stalled, or the loader died"
                        await self._refuse(peer, asked, Cause.INTERRUPTED, why)
                        return None
            except (Refusal, NotPermitted, StillThere, OSError, ProtocolError) as error:
                what = "" if isinstance(answer, Removal) else "the key is not held: "
                return await self._refuse(peer, asked, cause_of(error), f"{what}{error}")
        return Success()

    async def _hold_inserted(self, peer: Peer, number: int, inserted: Inserted) -> str:
        """Have a token's keys held, but for those that are held otherwise, as ssh-agent does.

        They take the place of all that was held through this provider before, whose token may have
        been another; but for another host they take the place of nothing, which may be for other
        hosts, or only with a yes.  Gives what there is to say of them.  Raises what `hold` does.
        """
        provider = inserted.provider
        told, wanted = [], []
        async with self._holding.changing:
            try:
                before = set()
                if not peer.sessions.attempted:
                    before = {one.blob for one in self._of_token(provider)}
                for inserted_one in inserted.identities:
                    identity = inserted_one.beginning(clock.now())
                    held = self._store.find_readable(identity.blob)
                    if held and identity.blob not in before:
                        told.append(_held_otherwise(held.identity))
                    else:
                        self._holding.check(peer, identity)
                        wanted.append(identity)
                if not wanted:
                    told_so = f"nothing new of {provider}: {'; '.join(told)}"
                    raise Refusal(Cause.HELD_ALREADY, told_so)
                for reason in told:
                    log.warning(f"{provider}: {reason}")
                for identity in wanted:
                    told.append(tell(await self._holding.hold(peer, number, identity)))
                gone = before - {identity.blob for identity in wanted}
                faults = [fault for blob in gone for fault in await self._end(blob)]
            finally:
                # Its keys are kept that are to be kept.
                with trio.CancelScope(shield=True):
                    await self._workers.drop(number)
        await self._removed(faults)
        return "; ".join(told)

    def _of_token(self, provider: str) -> list[Identity]:
        return [
            one
            for one in self._store.identities()
            if one.custody is Custody.TOKEN and one.why == provider
        ]

    async def _remove_token(self, peer: Peer, provider: str) -> None:
        """Raises Refusal, NotPermitted."""
        async with self._holding.changing:
            self._lock.check()  # meanwhile
            identities = self._of_token(provider)
            if not identities:
                raise Refusal(Cause.UNKNOWN_KEY, f"no key of {provider} is held")
            for identity in identities:
                check_visible(identity, peer.sessions, time.time())
            faults = [fault for one in identities for fault in await self._end(one.blob)]
        await self._removed(faults)
        log.info(f"the keys of {quoted(provider)} were removed")

    async def _end(self, blob: bytes) -> list[str]:
        """First what signs: without its record, its constraints would be unknown."""
        self._tally.refusals.removed(blob)
        faults = faults_of(await self._workers.forget(description_of(blob)))
        return faults + await trio.to_thread.run_sync(self._store.remove, blob)

    async def answer(self, peer: Peer, payload: bytes) -> Message | None:
        """Every other request; None if its answer is begun already."""
        logged, told = False, ""
        asked = _Asked(_name_of(payload[0]))
        try:
            message = decode(payload)
            if isinstance(message, Extension):
                asked.request = message.name
            elif isinstance(message, RemoveIdentity):
                asked.blob = message.blob
            if isinstance(message, SignRequest):
                logged = True  # with all that is known of it
                await self._signing.answer(peer, message)
                return None
            return await self._carry_out(peer, message)
        except RefusalFromAfar as error:
            reason, cause, told = str(error), error.cause, error.told
        except (Refusal, NotPermitted, ProtocolError) as error:
            reason, cause = str(error), error.cause
        except KernelKeyError as error:
            reason, cause = f"the kernel refused: {error}", cause_of(error)
        except OSError as error:
            if logged:
                raise  # the client has gone
            reason, cause = f"the machine has too little left: {error}", cause_of(error)
        if logged:
            peer.explanation = told or reason
            return Failure()
        return await self._refuse(peer, asked, cause, reason)

    async def _refuse(self, peer: Peer, asked: _Asked, cause: Cause, reason: str) -> Message:
        """Have it told of, in the log and to who asks; all but what a SIGN_REQUEST is told."""
        peer.explanation = reason
        log.warning(f"refused: {reason}; {HELP} tells more")
        # Who asks, as with signatures.
        await self._signing.look(peer)
        held = None
        with suppress(KernelKeyError):
            held = self._store.find_readable(asked.blob) if asked.blob else None
        self._tally.refusals.add(
            cause,
            reason,
            request=asked.request,
            origin=peer.origin,
            forwarded=peer.sessions.forwarded,
            fingerprint=_fingerprint(asked.blob) if asked.blob else "",
            comment=held.identity.comment if held else asked.comment,
        )
        return Failure()

    def turn_away(self, peer: Peer) -> None:
        """Tell of another user's process, which is not served."""
        log.warning(
            f"uid mismatch: process {peer.process.pid} of uid {peer.uid} was turned away; {HELP}"
        )
        # Without the process, so that who comes over and over is one.
        reason = f"a process of uid {peer.uid} was turned away"
        self._tally.refusals.add(Cause.OTHER_USER, reason, request="", origin=None)

    async def _carry_out(self, peer: Peer, message: Message) -> Message:
        if self._lock.locked:
            return await self._carry_out_locked(peer, message)
        match message:
            case RequestIdentities():
                return await self._list(peer)
            case RemoveIdentity(blob):
                return await self._remove(peer, blob)
            case RemoveAllIdentities():
                await self.remove_all()
                return Success()
            case RemoveAllRsaIdentities():  # ssh-add -D sends both
                await self.remove_all(once_more=True)
                return Success()
            case messages.Lock(passphrase):
                if not await self._lock.lock(passphrase, peer.process.pid):
                    raise Refusal(Cause.NO_PASSPHRASE, "not locked: there must be a passphrase")
                await self._signing.settled()
                log.info("locked")
                return Success()
            case Unlock():
                raise Refusal(Cause.NOT_LOCKED, "the agent is not locked")
            case Extension():
                return await self._extension(peer, message)
            case _:
                raise Refusal(Cause.UNSUPPORTED, f"{message.type.name} is not supported")

    async def _carry_out_locked(self, peer: Peer, message: Message) -> Message:
        match message:
            case RequestIdentities():
                return IdentitiesAnswer(())
            case Unlock(passphrase):
                if not await self._lock.unlock(passphrase, peer.process.pid):
                    raise Refusal(Cause.WRONG_PASSPHRASE, "wrong passphrase")
                log.info("unlocked")
                return Success()
            case Extension(
                "session-bind@openssh.com" | "explain@kagent" | "status@kagent" | "via@kagent"
            ):
                return await self._extension(peer, message)
            case _:
                raise Refusal(Cause.LOCKED, "the agent is locked")

    async def _list(self, peer: Peer) -> Message:
        shown = await self._shown(peer)
        # No other host may have a command run here, which may open a window.
        if not peer.sessions.forwarded and await self._certificates.renew(
            one.blob for one in shown
        ):
            shown = await self._shown(peer)  # as it is now
        offered = await self._hosts.offered(peer, self._certificates.beside(shown))
        if self._lock.locked:  # meanwhile
            return IdentitiesAnswer(())
        return IdentitiesAnswer(tuple(ListedKey(one.blob, one.comment) for one in offered))

    async def _show(self, peer: Peer) -> Message:
        shown = self._certificates.beside(await self._shown(peer))
        shown = _fitting(shown, lambda one: len(one.write()))
        return ExtensionResponse(SHOW, b"".join([one.write() for one in shown]))

    async def _shown(self, peer: Peer) -> list[Shown]:
        """What is held and may be seen here, and what is configured or behind kagent besides."""
        async with self._scanning.of(peer.process.pid):
            held = await trio.to_thread.run_sync(self._store.all)
        shown = [_about(one) for one in held if _is_visible(one, peer)]
        # What is held is asked for first, so that its constraints count.
        blobs = {one.blob for one in held}
        configured = await self._fetching.offered(
            peer.process.pid, forwarded=peer.sessions.forwarded
        )
        for one in (*configured.shown, *configured.sources):
            if one.blob not in blobs:
                blobs.add(one.blob)
                shown.append(one)
        shown = _fitting(shown, lambda one: len(ListedKey(one.blob, one.comment).write()))
        behind = await self._behind.identities(peer) if self._behind else []
        if self._lock.locked:  # meanwhile
            return []
        if behind:
            _append(shown, [one for one in behind if one.blob not in blobs])
        return shown

    async def _remove(self, peer: Peer, blob: bytes) -> Message:
        held = self._store.find_readable(blob)
        if held is None:
            async with self._scanning.of(peer.process.pid):
                held = await trio.to_thread.run_sync(self._store.find_adopted, blob)
        if held:
            check_visible(held.identity, peer.sessions, time.time())
        elif not self._store.has_some_of(blob):
            if self._certificates.find(blob):
                raise Refusal(
                    Cause.CONFIGURED,
                    "the certificate is not loaded, but printed by a command: it goes with its "
                    "key, or with that line of kagent.toml",
                )
            configured = await self._fetching.offered(
                peer.process.pid, forwarded=peer.sessions.forwarded
            )
            if any(one.blob == blob for one in configured.sources):
                raise Refusal(
                    Cause.CONFIGURED,
                    "the key is not loaded but has a source: kagentctl forget-source KEYFILE",
                )
            if any(one.blob == blob for one in configured.shown):
                raise Refusal(
                    Cause.CONFIGURED,
                    "the key is not loaded but configured: see kagent-provision(8)",
                )
            if self._behind and (behind := await self._behind.find(peer, blob)):
                where = ""
                if not peer.sessions.attempted:
                    where = f": SSH_AUTH_SOCK={quoted(behind.socket)} ssh-add -d KEYFILE"
                raise Refusal(
                    Cause.ELSEWHERE, f"the key is another agent's, which can remove it{where}"
                )
            gone = None if peer.sessions.attempted else self._tally.refusals.no_such_key(blob)
            raise gone or Refusal(Cause.UNKNOWN_KEY, "no such key")
        elif peer.sessions.attempted:
            raise Refusal(
                Cause.FROM_AFAR, "the key's record can't be read, so who may remove it is unknown"
            )
        async with self._holding.changing:
            self._lock.check()  # meanwhile
            if now := self._store.find_readable(blob):
                check_visible(now.identity, peer.sessions, time.time())
            faults = await self._end(blob)
        self._certificates.forget(blob)
        await self._removed(faults)
        log.info(f"{_fingerprint(blob)} was removed")
        return Success()

    async def remove_all(self, *, even_if_locked: bool = False, once_more: bool = False) -> None:
        """Remove all keys; `once_more` is silent where there is none.

        Raises Refusal if some can't be: the others are gone all the same.
        """
        async with self._holding.changing:
            if not even_if_locked:
                self._lock.check()  # meanwhile
            held = self._store.identities()
            for one in held:
                self._tally.refusals.removed(one.blob)
            faults = faults_of(await self._workers.forget_all())
            faults += await trio.to_thread.run_sync(self._store.remove_all)
        self._certificates.forget()
        await self._removed(faults)
        if held or not once_more:
            log.info("all keys were removed")

    async def _removed(self, faults: list[str]) -> None:
        await self._signing.settled()
        if faults:
            raise Refusal(Cause.STILL_THERE, f"not all was removed: {'; '.join(faults)}")

    async def _extension(self, peer: Peer, request: Extension) -> Message:
        match request.name:
            case "show@kagent" | "status@kagent" | "why@kagent" if peer.sessions.attempted:
                # A key's destinations, say, or which hosts have asked for it: all that other hosts
                # may know is what they can list.
                raise Refusal(
                    Cause.FROM_AFAR,
                    "how the agent is, and what its keys are for, is not told to other hosts",
                )
            case "explain@kagent":
                return ExtensionResponse(EXPLAIN, TEXT.write(peer.explanation))
            case "show@kagent":
                return await self._show(peer)
            case "status@kagent":
                return self._status()
            case "why@kagent":
                told = self._tally.refusals.told(self._tally.since)
                return ExtensionResponse(WHY, told.write())
            case "query":
                return ExtensionResponse(QUERY, b"".join(map(TEXT.write, _EXTENSIONS)))
            case "session-bind@openssh.com":
                return await self._bind(peer, request.contents)
            case "via@kagent":
                return await self._come_via(peer, request.contents)
            case name:
                raise Refusal(Cause.UNSUPPORTED, f"unknown extension {name[:64]!r}")

    async def _come_via(self, peer: Peer, contents: bytes) -> Message:
        if not self._behind or self._behind.comes_via(peer, contents):
            return Success()
        reason = f"kagent is behind itself, by way of who asks: process {peer.process.pid}"
        await self._refuse(peer, _Asked(VIA), Cause.LOOP, reason)
        return ExtensionResponse(VIA, b"")

    def _status(self) -> Message:
        status = self._tally.status(
            locked=self._lock.locked,
            idle_exit=self._idle_exit,
            stays=self._store.ends_with_agent or self._certificates.has_some,
        )
        return ExtensionResponse(STATUS, status.write())

    async def _bind(self, peer: Peer, contents: bytes) -> Message:
        async def verify(bind: SessionBind) -> None:
            async with self._binding.of(peer.process.pid):
                answer = await self._workers.send_out(Kind.CHECK_BIND, bind)
            if not isinstance(answer, Done):
                told = refusal(answer, "not checked")
                raise NotPermitted(told.cause, str(told))

        if self._behind:
            self._behind.bind(peer, contents)
        try:
            await peer.sessions.bind(contents, verify)
        except (NotPermitted, ProtocolError) as error:
            reason = f"the session is not bound: {error}"
            await self._refuse(peer, _Asked(SESSION_BIND), error.cause, reason)
            return ExtensionFailure()
        return Success()


def _name_of(number: int) -> str:
    try:
        return Type(number).name
    except ValueError:
        return f"message {number}"


def _fingerprint(blob: bytes) -> str:
    try:
        return PublicKey.parse(blob).fingerprint()
    except ProtocolError:  # held by another version, or by who can write to the anchor
        return "a key of an unknown type"


def _held_otherwise(identity: Identity) -> str:
    fingerprint = PublicKey.parse(identity.blob).fingerprint()
    return (
        f"{fingerprint} was held already, in custody {custody_told(identity)}, and stays as it was"
    )


async def _has_come(client: socket.socket, length: int) -> bool:
    """Whether so many bytes wait to be read, now or in a moment.  They are not looked at."""
    if length > _FITS:
        return False
    waiting = array.array("i", [0])
    for _ in range(_LOOKS):
        fcntl.ioctl(client, termios.FIONREAD, waiting)
        if waiting[0] >= length:
            return True
        await trio.sleep(_SECONDS_OF_A_LOOK)
    return False


def _about(identity: Identity) -> Shown:
    return Shown(
        identity.blob,
        identity.comment,
        identity.lives,
        why(identity),
        identity.constraints,
        _expiry(identity.deadline),
    )


def _fitting(shown: list[Shown], length: Callable[[Shown], int]) -> list[Shown]:
    """Those that have room in an answer: the longest go first.

    Others can write to the anchor, if only what no client could: a comment of a megabyte.  And
    there is no room for many that are short: a key counts more of its user's quota.
    """
    room, fits = MAX_PAYLOAD - _ROOM_FOR_HEADERS, set()
    for one in sorted(shown, key=length):
        room -= length(one)
        if room < 0:
            log.warning("there are more keys, or longer ones, than have room in an answer")
            break
        fits.add(one.blob)
    return [one for one in shown if one.blob in fits]


def _append(shown: list[Shown], identities: Iterable[Identity]) -> None:
    """As far as they have room in an answer: other agents' keys may not keep kagent's own out."""
    room = MAX_PAYLOAD - _ROOM_FOR_HEADERS - sum(len(one.write()) for one in shown)
    for one in map(_about, identities):
        room -= len(one.write())
        if room < 0:
            log.warning("the agents behind have more keys than have room in an answer")
            return
        shown.append(one)


def _expiry(deadline: int) -> int:
    """A deadline in seconds since 1970, as the clock is now."""
    if not deadline:
        return 0
    left = deadline - clock.now()
    return int(time.time() + left / clock.SECOND)


def _is_visible(identity: Identity, peer: Peer) -> bool:
    try:
        check_visible(identity, peer.sessions, time.time())
    except NotPermitted as reason:
        log.debug(f"not listed: {reason}")
        return False
    return True
