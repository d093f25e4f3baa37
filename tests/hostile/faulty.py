"""kagent with one of the faults that it, or another agent, has had: what finds no fault in these
finds none anywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from kagent.cli import agent
from kagent.custody.anchor import RECORD_TYPES, Held
from kagent.custody.identity import Identity, description_of
from kagent.custody.rings import KeeperRings
from kagent.custody.store import Store
from kagent.front.lock import AgentLock
from kagent.front.peer import Refusal
from kagent.front.requests import Requests
from kagent.front.signatures import Signing
from kagent.jobs.causes import Cause
from kagent.jobs.terms import Terms
from kagent.keeper.keeper import Keeper
from kagent.keyctl import KernelKeyError
from kagent.protocol.constraints import Confirm
from kagent.protocol.wire import ProtocolError


def _believe_what_was_there() -> None:
    """A record counts wherever it is found."""
    find = Store.find

    def find_anywhere(store: Store, blob: bytes) -> Held | None:
        if anchor := store.rings.anchor:
            for key, about in anchor.described():
                if about.description == description_of(blob) and about.type in RECORD_TYPES:
                    with suppress(KernelKeyError, ProtocolError):
                        return Held(Identity.parse(key.read()), None)
        return find(store, blob)

    Store.find = find_anywhere  # type: ignore[method-assign]


def _decide_before_waiting() -> None:
    """What was looked at before the user was asked isn't looked at again."""

    def check_no_more(signing: Signing, case):  # type: ignore[no-untyped-def]
        if held := signing._store.find(case.request.blob):
            return held
        raise Refusal(Cause.CHANGED, "it is gone")

    Signing._check = check_no_more  # type: ignore[method-assign]


def _keep_the_lock_in_memory() -> None:
    """A new front knows of no lock."""
    made = AgentLock.__init__

    def unlocked(lock: AgentLock, store: Store) -> None:
        made(lock, store)
        lock.locked = False

    AgentLock.__init__ = unlocked  # type: ignore[method-assign]


def _forget_when_keys_end() -> None:
    """Lifetimes are taken note of, and nothing follows."""
    Identity.ended = lambda identity, now: False  # type: ignore[method-assign]
    Keeper._end = lambda keeper, name: keeper._ends.pop(name)  # type: ignore[method-assign, assign, return-value]


def _keep_the_old_constraints() -> None:
    """A key that is loaded again is held as it was the first time."""
    in_its_place = Store.in_its_place

    def as_before(store: Store, loaded: Identity) -> Identity:
        held = store.find_readable(loaded.blob)
        if held and held.identity.custody == loaded.custody:
            loaded = loaded.replace(constraints=held.identity.constraints)
        return in_its_place(store, loaded)

    Store.in_its_place = as_before  # type: ignore[method-assign]


def _remove_the_record_alone() -> None:
    """What is removed is listed no more, and stays; a front that dies has it listed again."""
    Store.remove = lambda store, blob: []  # type: ignore[method-assign]
    KeeperRings.forget = lambda rings, description, but=None: []  # type: ignore[method-assign]


def _let_go_of_what_is_removed() -> None:
    """What others have linked elsewhere lives on."""

    def remove(store: Store, blob: bytes) -> list[str]:
        for keyring in filter(None, (store.rings.private, store.rings.lent, store.rings.anchor)):
            for key, about in list(keyring.described()):
                if about.description == description_of(blob):
                    keyring.unlink(key)
        return []

    Store.remove = remove  # type: ignore[method-assign]


def _lose_a_constraint() -> None:
    """A constraint that comes with another is forgotten."""
    kept = Terms.constraints

    def constraints(terms: Terms, asked):  # type: ignore[no-untyped-def]
        all_of_them = kept(terms, asked)
        others = tuple(one for one in all_of_them if one != Confirm())
        return others or all_of_them

    Terms.constraints = constraints  # type: ignore[method-assign]


def _sign_while_locked() -> None:
    """The lock is for lists alone."""

    async def answer(requests: Requests, peer, payload: bytes) -> bytes:  # type: ignore[no-untyped-def]
        locked, lock = requests._lock.locked, requests._lock
        lock.locked = locked and payload[:1] != b"\x0d"
        try:
            return await answered(requests, peer, payload)
        finally:
            if payload[:1] == b"\x0d":
                lock.locked = locked

    answered, Requests.answer = Requests.answer, answer  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    "believes forged records": _believe_what_was_there,
    "decides before it waits": _decide_before_waiting,
    "unlocked by a killed front": _keep_the_lock_in_memory,
    "keys don't end": _forget_when_keys_end,
}
# Of keys that the kernel signs with.
KERNEL_FAULTS = {"lets go of what is removed": _let_go_of_what_is_removed}
MORE_FAULTS = {
    "keeps old constraints": _keep_the_old_constraints,
    "removes nothing": _remove_the_record_alone,
    "loses a constraint": _lose_a_constraint,
    "signs while locked": _sign_while_locked,
}


def main(name: str) -> int:
    """kagent with that fault."""
    (FAULTS | KERNEL_FAULTS | MORE_FAULTS)[name]()
    return agent.main()
