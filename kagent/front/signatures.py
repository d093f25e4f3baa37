"""A signature: whether it may be made, asking the user if need be, and making it."""

from __future__ import annotations

import errno
import time
from functools import lru_cache, partial
from typing import NamedTuple

import trio

from .. import log
from ..custody import clock, kernel
from ..custody.anchor import Held
from ..custody.identity import Custody
from ..jobs.causes import Cause, cause_of
from ..jobs.jobs import Answer, Done, Kind, Signed, SignJob
from ..jobs.questions import (
    Ask,
    Binding,
    DeviceSignature,
    FromSource,
    Origin,
    Purpose,
    Question,
    TokenSignature,
    Who,
    Worded,
)
from ..keyctl import KernelKeyError, KeyExpired, KeyNotFound, KeyRevoked, PermissionDenied
from ..protocol.algorithms import SignFlags, algorithm_of
from ..protocol.constraints import Confirm, ConfirmForwarded
from ..protocol.messages import SignRequest, SignResponse
from ..protocol.publickey import PublicKey
from ..protocol.userauth import Login, SignedMessage, ToBeSigned, recognise
from ..protocol.wire import ProtocolError, Record
from .desk import Desk
from .destinations import check_signature
from .peer import Peer, Refusal, RefusalFromAfar, refusal
from .sessions import NotPermitted
from .signature_log import Entry
from .sources import SourceIdentity
from .turns import Turns

_LONGEST_SHOWN = 1000  # characters; a question shows less, the beginning and the end
_SECONDS_UNDER_WAY = 1.0
# The other half is for what is between its last look and the answer.
_LONG = int(_SECONDS_UNDER_WAY / 2 * clock.SECOND)
# What the kernel says of a key that isn't there any more, for us.
_GONE = (KeyNotFound, KeyExpired, KeyRevoked, PermissionDenied)


class _Case(NamedTuple):
    """A request, and what was found out about it."""

    peer: Peer
    request: SignRequest
    key: PublicKey
    algorithm: str
    signed: ToBeSigned | None
    told: ToBeSigned | None  # to the user: a login with the key's certificate is one too
    held: Held
    loaded: bool  # or else it is an adopted or a fetched one
    certificate: PublicKey | None  # a renewed one: `request` is for its plain key, `key` is it

    @property
    def must_ask(self) -> bool:
        """Whether the user has to say yes."""
        constraints = {type(one) for one in self.held.identity.constraints}
        forwarded = self.peer.sessions.forwarded
        return Confirm in constraints or (ConfirmForwarded in constraints and forwarded)


class Signing:
    """Answers requests for signatures."""

    def __init__(self, desk: Desk) -> None:
        self._store = desk.store
        self._lock = desk.lock
        self._workers = desk.workers
        self._sign_workers = desk.sign_workers
        self._fetching = desk.fetching
        self._sources = desk.sources
        self._behind = desk.behind
        self._hosts = desk.hosts
        self._certificates = desk.certificates
        self._notices = desk.notices
        self._signers = desk.signers
        self._fingerprint_hash = desk.settings.fingerprint_hash
        self._web_safety = desk.settings.web_safety
        self._tally = desk.tally
        self._scanning = desk.scanning
        # Two windows at once would take the keyboard from each other.
        self._asking = Turns(1, 1)
        self._at_tokens: dict[str, Turns] = {}  # by the provider
        self._under_way: set[trio.Event] = set()

    async def answer(self, peer: Peer, request: SignRequest) -> None:
        """Sign, and begin the answer; or say why not.

        Raises Refusal, NotPermitted, ProtocolError, KernelKeyError.
        """
        key = _parsed(request.blob)
        known = key if isinstance(key, PublicKey) else None
        entry = Entry(known, forwarded=peer.sessions.forwarded)
        # First, since many a client ends as soon as it has what it wants.
        await self.look(peer)
        try:
            await self._answer(peer, request, key, entry)
            self._tally.signatures += 1
            entry.signed = True
        except (Refusal, NotPermitted, ProtocolError, KernelKeyError) as error:
            entry.cause, entry.refusal = cause_of(error), str(error)
            raise
        except BaseException as error:
            entry.fault = str(error) or type(error).__name__
            raise
        finally:
            entry.write(peer.origin)
            if entry.cause:
                entry.keep(self._tally.refusals, peer.origin)
            if entry.signed:
                self._notices.used(entry, peer.origin)

    async def settled(self) -> None:
        """Wait for the signatures that were looked at before what has just changed.

        So what is answered next is true: nothing signs any more that should not.  One that takes
        longer than a second is looked at again before it is given to anybody.
        """
        with trio.move_on_after(_SECONDS_UNDER_WAY):
            for event in tuple(self._under_way):
                await event.wait()

    async def look(self, peer: Peer) -> None:
        """See who asks, if that isn't known, and by which hosts' names."""
        # Without their certificates, which can be long.
        hosts = tuple(session.proved_blob for session in peer.sessions.bound)
        if peer.origin is None or len(peer.origin.hosts) != len(hosts):
            peer.origin = None
            question = Who(peer.process, hosts)
            try:
                answer = await self._workers.look_soon(question)
                peer.origin = answer if isinstance(answer, Origin) else None
            except OSError as error:
                log.error(f"who asks can't be told: {error}")

    async def _answer(
        self, peer: Peer, request: SignRequest, key: PublicKey | ProtocolError, entry: Entry
    ) -> None:
        self._lock.check()
        held = self._store.find(request.blob)
        certificate = None if held else self._certificates.find(request.blob)
        if certificate:
            self._certificates.check(certificate)
            request = request.replace(blob=certificate.plain_blob)
            held = self._store.find(request.blob)
        loaded = held is not None
        if held is None:
            held = await self._find_elsewhere(peer, request.blob)
        entry.identity = held.identity
        if isinstance(key, ProtocolError):
            raise key
        entry.algorithm = algorithm = _signature_algorithm(key, request.flags)
        signed = recognise(request.data, key)
        told = signed or recognise(request.data, key, also_certified=True)
        if isinstance(told, Login):
            entry.user = told.user
        case = _Case(peer, request, key, algorithm, signed, told, held, loaded, certificate)
        check_signature(held.identity, peer.sessions, signed, time.time())
        if held.identity.custody is Custody.SOURCE:
            case = await self._fetched(case)
            entry.identity = case.held.identity
        if case.must_ask:
            await self._confirm(case)
        if case.must_ask or not loaded:  # somebody was waited for
            self._check(case)
        done = trio.Event()
        self._under_way.add(done)
        try:
            await self._sign(case)
        finally:
            self._under_way.discard(done)
            done.set()
        self._hosts.signed(peer, request.data, key)
        identity = case.held.identity
        if identity.idle and clock.now() + identity.idle - identity.deadline >= clock.SECOND:
            self._workers.used(identity)
            self._tally.refusals.used(identity)

    def _check(self, case: _Case) -> Held:
        """All that a signature rests on, as it is now; the key to be used.  For any thread.

        Called after the last wait before a signature, and where that is made by somebody else,
        also before it is given away: while something was waited for, the agent may have been
        locked, and the key removed, replaced, or at its end.  Raises Refusal, NotPermitted,
        ProtocolError, KernelKeyError.
        """
        self._check_all_but_the_key(case)
        now = self._store.find(case.request.blob)
        if now is None and case.loaded:
            raise Refusal(Cause.CHANGED, "the key was removed meanwhile, or its time is over")
        now = now or case.held
        if now.identity.constraints != case.held.identity.constraints:
            raise Refusal(
                Cause.CHANGED, "the key was loaded again meanwhile, under other constraints"
            )
        return now

    def _check_all_but_the_key(self, case: _Case) -> None:
        self._lock.check()
        if case.certificate:
            self._certificates.check(case.certificate)
        check_signature(case.held.identity, case.peer.sessions, case.signed, time.time())

    async def _sign(self, case: _Case) -> None:
        match case.held.identity.custody:
            case Custody.KERNEL:
                return await self._sign_in_kernel(case)
            case Custody.DEVICE:
                made = self._sign_with_device
            case Custody.SEALED:
                made = self._sign_sealed
            case Custody.BEHIND:
                made = self._sign_behind
            case Custody.TOKEN:
                made = self._sign_with_token
            case Custody.SOURCE:
                raise Refusal(Cause.SOURCE, "the key is not fetched yet")
        answer = await made(case)
        self._check(case)
        if isinstance(answer, Signed):
            # Now and not later: the client can go on while this is logged.
            case.peer.answers.begin(SignResponse(answer.signature))
            return
        raise refusal(answer, "who should sign has died")

    async def _sign_in_kernel(self, case: _Case) -> None:
        pid = case.peer.process.pid
        # One that nobody has loaded stays when the same is loaded under a constraint meanwhile.
        sign = self._sign_with_it if case.loaded else self._sign_if_still_held
        if case.held.key:
            try:
                return await self._signers.call(partial(sign, case), pid)
            except _GONE:
                # Loading a key again replaces it, which may have happened since it was looked up:
                # it is gone then, or just not possessed any more.  A fetched one has its time.
                self._fetching.drop(case.held)
                if not case.loaded:
                    again = await self._find_elsewhere(case.peer, case.request.blob)
                    case = case._replace(held=again)
        await self._signers.call(partial(self._sign_if_still_held, case), pid)

    def _sign_with_it(self, case: _Case) -> None:
        """Have the kernel sign with the key that was found, and begin the answer; in any thread.

        What removes or replaces a loaded key ends the kernel's, which then refuses: so of such a
        key only the time is looked at again, unless the signature has taken longer than those who
        change something wait for.
        """
        begun = clock.now()
        self._check_all_but_the_key(case)
        assert case.held.key
        if case.held.identity.ended(clock.now()):
            raise KeyExpired(errno.EKEYEXPIRED, "sign")
        made = kernel.sign(case.held.key, case.key, case.algorithm, case.request.data)
        if clock.now() - begun >= _LONG:
            self._check(case)
        case.peer.answers.begin(SignResponse(made))

    def _sign_if_still_held(self, case: _Case) -> None:
        held = self._check(case)
        if held.key is None:
            raise Refusal(Cause.CHANGED, "the key was loaded again meanwhile, in another custody")
        self._sign_with_it(case._replace(held=held))

    async def _sign_sealed(self, case: _Case) -> Answer | None:
        description = case.held.identity.description
        job = SignJob(description, case.algorithm, case.request.data)
        return await self._sign_workers.sign(job, case.peer.process.pid)

    async def _sign_behind(self, case: _Case) -> Answer | None:
        assert self._behind
        self._check_web_safety(case)
        try:
            return await self._behind.sign(case.peer, case.request)
        except OSError as error:
            raise Refusal(Cause.BEHIND, f"the agent behind can't be asked: {error}") from error

    def _check_web_safety(self, case: _Case) -> None:
        if case.signed is None and self._web_safety.demands_ssh(case.key):
            raise Refusal(Cause.WEB, "web-origin key attempting to sign non-SSH message")

    async def _sign_with_device(self, case: _Case) -> Answer | None:
        request = case.request
        self._check_web_safety(case)
        worded = await self._worded(case)
        signature = DeviceSignature(request.blob, request.data, worded.details)
        return await self._ask(Kind.DEVICE, signature, case.peer)

    async def _sign_with_token(self, case: _Case) -> Answer | None:
        request, identity = case.request, case.held.identity
        asked = TokenSignature(request.blob, case.algorithm, request.data)
        # A token signs one after the other: who wants many is in nobody's way.
        turns = self._at_tokens.setdefault(identity.why, Turns(1, 1))
        async with turns.of(case.peer.process.pid):
            self._check(case)
            return await self._workers.have_token_sign(identity.description, asked)

    async def _find_elsewhere(self, peer: Peer, blob: bytes) -> Held:
        """An identity that nobody has loaded into kagent.  Raises Refusal."""
        held = self._fetching.held(blob)
        if held is None:
            async with self._scanning.of(peer.process.pid):
                held = await trio.to_thread.run_sync(self._store.find_adopted, blob)
        if held:
            return held
        configured = await self._fetching.offered(
            peer.process.pid, forwarded=peer.sessions.forwarded
        )
        if not any(one.blob == blob for one in configured.shown):
            for one in configured.sources:
                if one.blob == blob:
                    source = SourceIdentity(blob, one.comment, Custody.SOURCE, one.custody)
                    return Held(source, None)
            if self._behind:
                if behind := await self._behind.find(peer, blob):
                    return Held(behind, None)
                if faults := self._behind.faults(peer):
                    raise Refusal(Cause.BEHIND, f"no such key here, and {faults}")
        try:
            return await self._fetching.fetch(blob, peer.process.pid)
        except Refusal as error:
            # A host that can't see a key isn't told that it was here, or that it could be.
            if error.cause is Cause.SOURCE_FORWARDED and peer.sessions.forwarded:
                raise RefusalFromAfar(error, "no such key") from error
            if error.cause is Cause.SOURCE_FORWARDED and self._fetching.look_again():
                return await self._find_elsewhere(peer, blob)
            if error.cause is not Cause.UNKNOWN_KEY or peer.sessions.attempted:
                raise
            raise self._tally.refusals.no_such_key(blob) or error from None

    async def _fetched(self, case: _Case) -> _Case:
        """With the key that its source has given.  Raises Refusal."""
        blob, peer = case.request.blob, case.peer
        worded = await self._worded(case)
        wanted = FromSource(blob, worded.details, peer.sessions.forwarded)
        try:
            await self._sources.fetch(peer, blob, partial(self._ask, Kind.SOURCE, wanted, peer))
        except Refusal as error:
            if not peer.sessions.forwarded:
                raise
            # Other hosts are told nothing of the paths here.
            raise RefusalFromAfar(error, "its source gives no key") from error
        held = self._store.find(blob)
        if held is None:
            raise Refusal(Cause.CHANGED, "the key was removed meanwhile, or its time is over")
        return case._replace(held=held, loaded=True)

    async def _confirm(self, case: _Case) -> None:
        worded = await self._worded(case)
        answer = await self._ask(Kind.ASK, Ask(worded.prompt), case.peer)
        if not isinstance(answer, Done):
            raise refusal(answer, "nobody could be asked")

    async def _ask(self, kind: Kind, request: Record, peer: Peer, number: int = 0) -> Answer | None:
        self._tally.pending += 1
        try:
            async with self._asking.of(peer.process.pid):
                self._lock.check()  # meanwhile
                return await self._workers.ask_user(kind, request, peer.client, number)
        finally:
            self._tally.pending -= 1

    async def _worded(self, case: _Case) -> Worded:
        try:
            answer = await self._workers.look(self._question(case))
        except OSError as error:
            raise Refusal(Cause.FAULT, f"the question can't be worded: {error}") from error
        if not isinstance(answer, Worded):
            raise Refusal(Cause.FAULT, "the question can't be worded: the lookout died")
        return answer

    def _question(self, case: _Case) -> Question:
        purpose, name = Purpose.UNKNOWN, ""
        match case.told:
            case Login(_, user, _):
                purpose, name = Purpose.LOGIN, user
            case SignedMessage(namespace):
                purpose, name = Purpose.SSHSIG, namespace
        identity = case.held.identity
        return Question(
            _shortened(identity.comment),
            case.key.fingerprint(self._fingerprint_hash),
            case.peer.process,
            tuple(
                Binding(session.proved_blob, session.forwarded)
                for session in case.peer.sessions.way(case.told)
            ),
            purpose,
            _shortened(name),
        )


def _shortened(text: str) -> str:
    """Both ends of what is long: the question has to fit into a packet."""
    if len(text) <= _LONGEST_SHOWN:
        return text
    half = _LONGEST_SHOWN // 2
    return text[:half] + text[-half:]


@lru_cache(maxsize=16)  # a client's blob can be as long as its message
def _parsed(blob: bytes) -> PublicKey | ProtocolError:
    """The key, or what is wrong with it: that matters only if such a key is held."""
    try:
        return PublicKey.parse(blob)
    except ProtocolError as error:
        return error


def _signature_algorithm(key: PublicKey, flags: int) -> str:
    """RFC 9987 section 3.6.1.  Raises Refusal."""
    unknown = flags & ~int(SignFlags.RSA_SHA2_256 | SignFlags.RSA_SHA2_512)
    if unknown:
        raise Refusal(Cause.FLAGS, f"unknown signature flags {unknown:#x}")
    return algorithm_of(key.plain_type, flags)
