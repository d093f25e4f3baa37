"""Having the key of a load held, whole or not at all."""

from __future__ import annotations

import trio

from .. import log
from ..custody import clock
from ..custody.anchor import Held
from ..custody.identity import Custody, Identity
from ..custody.store import StillThere, Store
from ..jobs.causes import Cause
from ..jobs.jobs import Answer, Done, Refused
from ..protocol.constraints import RestrictDestination
from ..protocol.publickey import PublicKey
from ..text import quoted
from .channels import Workers
from .lock import AgentLock
from .peer import Peer, Refusal
from .refusals import Refusals


class Holding:
    """Changes what is held, by one request at a time: who changes it takes `changing` first."""

    def __init__(self, store: Store, workers: Workers, lock: AgentLock, refusals: Refusals) -> None:
        self.changing = trio.Lock()
        self._loads = 0
        self._store = store
        self._workers = workers
        self._lock = lock
        self._refusals = refusals

    def new_number(self) -> int:
        """By which the keeper knows a load."""
        self._loads += 1
        return self._loads

    def holds(self, blob: bytes) -> bool:
        """Whether there is a key of that public half now."""
        return self._store.find_readable(blob) is not None

    async def hold(self, peer: Peer, number: int, loaded: Identity) -> Identity:
        """Have the key of a load held; the identity, in its place in the list.

        What was held of it before stays until all is done, so that it can be gone back to; but for
        what others possess too, which has to end before a constraint holds.  Raises Refusal,
        StillThere, OSError, ProtocolError.
        """
        store, workers = self._store, self._workers
        try:
            self.check(peer, loaded)
            before = store.find_readable(loaded.blob)
            identity = store.in_its_place(loaded)
            private, description = store.is_private(identity), identity.description
            record = identity.write() if private else b""
            with trio.CancelScope(shield=True):
                answer = await workers.keep(number, identity, record)
        except BaseException:
            with trio.CancelScope(shield=True):
                await workers.drop(number)
            raise
        with trio.CancelScope(shield=True):
            if isinstance(answer, Refused):
                raise Refusal(answer.cause, answer.reason)  # and nothing has changed
            try:
                _expect_done(answer)
                store.settle(identity, locked=self._lock.locked)
                if identity.constraints:
                    # Else it could be used around them.
                    faults = await trio.to_thread.run_sync(store.adopted.remove, identity.blob)
                    if faults:
                        raise StillThere("; ".join(faults))
                _expect_done(
                    await workers.forget(description, identity.custody if private else None)
                )
            except BaseException:
                await self._go_back(identity, before)
                raise
        self._refusals.holds(identity)
        return identity

    async def _go_back(self, identity: Identity, before: Held | None) -> None:
        """After a load that failed halfway: what was held before stays.

        But what was removed meanwhile isn't brought back, as by SIGUSR1.
        """
        store, workers = self._store, self._workers
        if before and store.is_private(before.identity):
            answer = await workers.go_back(before.identity)
            if not isinstance(answer, Refused):
                store.leave_nothing_beside(before.identity)
                if store.find_readable(identity.blob):
                    return
        await workers.forget(identity.description)
        if before is None:
            store.leave_nothing_of(identity)

    def check(self, peer: Peer, identity: Identity) -> None:
        """Whether it may be held, as things are now.  Raises Refusal, ProtocolError."""
        PublicKey.parse(identity.blob)  # that its worker says so proves nothing
        self._lock.check()  # meanwhile
        if identity.ended(clock.now()):
            raise Refusal(Cause.LIFETIME, "its time was over before it was there")
        # ssh-agent lets a host that can't see a key not change it either.
        held = self._store.find(identity.blob) if peer.sessions.attempted else None
        if held and any(isinstance(one, RestrictDestination) for one in held.identity.constraints):
            raise Refusal(
                Cause.FROM_AFAR,
                "the key is held already, for some hosts only, and can't be changed from afar",
            )


def _expect_done(answer: Answer | None) -> None:
    if faults := faults_of(answer):
        raise StillThere("; ".join(faults))


def faults_of(answer: Answer | None) -> list[str]:
    """What could not be done, in words."""
    if isinstance(answer, Done):
        return []
    return [answer.reason if isinstance(answer, Refused) else "the keeper doesn't answer"]


def tell(identity: Identity) -> str:
    """What is said of a key that is held from now on, which is logged too."""
    fingerprint = PublicKey.parse(identity.blob).fingerprint()
    custody = custody_told(identity)
    log.info(f"holding {fingerprint} {quoted(identity.comment)}, custody {custody}")
    return f"{fingerprint} is held in custody {custody}"


def custody_told(identity: Identity) -> str:
    """How its key is held, in words."""
    told = why(identity)
    return f"{identity.lives} ({told})" if told else identity.lives


def why(identity: Identity) -> str:
    """Why the kernel doesn't sign itself, where that has to be said."""
    return "" if identity.custody is Custody.TOKEN else identity.why
