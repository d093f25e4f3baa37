"""Where keys are held, in real keyrings: what others reach of them, and what ends when.

This kernel need not sign: what it takes for a key of that name is a certificate.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import itertools
import math
import os
import resource
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding

from kagent.custody import adopted, clock
from kagent.custody.anchor import RECORD_TYPES, Anchor, Held
from kagent.custody.identity import Custody, Identity
from kagent.custody.rings import LOCK_NAME, POSSESSOR_ONLY, KeeperRings, Place, Rings
from kagent.custody.store import StillThere, Store
from kagent.front import lock
from kagent.front.peer import Refusal
from kagent.keyctl import (
    AsymmetricKey,
    KernelKeyError,
    Key,
    KeyNotFound,
    Keyring,
    KeyServiceBlocked,
    NothingFoundOut,
    Permission,
    PermissionDenied,
    PkeyLimits,
    PkeyOp,
    Quota,
    QuotaExceeded,
    RsaPublicKey,
    join_anonymous_session,
    mask,
    syscalls,
)
from kagent.keyctl.errors import error_for
from kagent.protocol.constraints import Confirm
from kagent.protocol.wire import MPINT, TEXT, ProtocolError


def _certificate() -> bytes:
    signer = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])  # the kernel wants one
    now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017, Debian 12's
    return (
        x509.CertificateBuilder(name, name, signer.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(signer, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


CERTIFICATE = _certificate()


def wait_for_room() -> None:
    """What is gone counts against a user's quota until it is collected."""
    for _ in range(100):
        quota = Quota.of(os.getuid())
        if quota is None or quota.used < 0.5:
            break
        time.sleep(0.02)


@pytest.fixture
def keeper(request: pytest.FixtureRequest) -> Iterator[KeeperRings]:
    """An agent's keyrings, in a login of their own."""
    join_anonymous_session()
    wait_for_room()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    keeper = KeeperRings.enter(getattr(request, "param", Place.SESSION))
    yield keeper
    for keyring in (keeper.shared.private, keeper.shared.lent, keeper.shared.withdrawn):
        keyring.clear()
    # An open file keeps who has opened it, and so the login, which counts against the user's quota.
    for shelf in (keeper.records, keeper.sealed, keeper.handles):
        shelf._memory.close()
        os.close(shelf.reader.fileno())
        os.close(shelf.fileno())
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    join_anonymous_session()


@pytest.fixture
def store(keeper: KeeperRings) -> Store:
    return Store(keeper.shared)


@pytest.fixture
def elsewhere(keeper: KeeperRings) -> Keyring:
    """A keyring of a program in the same login, in which it keeps what it can get."""
    return Keyring.create("elsewhere", keeper.shared.login)


def key(identity: Identity, keyring: Keyring) -> Key:
    return AsymmetricKey.add(identity.description, CERTIFICATE, keyring)


def load(keeper: KeeperRings, store: Store, identity: Identity, *, locked: bool = False) -> Key:
    """As the keeper has it by then: the key in the private ring, and the record if it is secret."""
    loaded = key(identity, keeper.shared.private)
    if store.is_private(identity):
        keeper.records.put(identity.description, identity.write())
    store.settle(identity, locked=locked)
    return loaded


def identity(name: str = "a", order: int = 1, **more: Any) -> Identity:
    return Identity(name.encode(), name, Custody.KERNEL, order=order, **more)


OPEN, OTHER = identity("open"), identity("other", 2)
SECRET = OPEN.replace(constraints=(Confirm(),), order=3)


def anchor(rings: Rings) -> Keyring:
    found = rings.anchor
    assert found
    return found


def names(keyring: Keyring | None) -> set[tuple[str, str]]:
    """What is linked there, as far as it lives."""
    if keyring is None:
        return set()
    content = {(about.type, about.description) for one, about in keyring.described() if one.alive}
    return {("record" if kind in RECORD_TYPES else kind, name) for kind, name in content}


def pair(*identities: Identity) -> set[tuple[str, str]]:
    """A key and its record."""
    return {(kind, one.description) for one in identities for kind in ("asymmetric", "record")}


class Kernel:
    """The calls to its keys, before each of which something else can happen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._happens: Callable[[str], bool] | None = None
        whole = syscalls._call

        def call(operation: str, number: int, first: int, *rest: int) -> int:
            happens, self._happens = self._happens, None  # what happens calls the kernel too
            if happens and not happens(operation or syscalls.Operation(first).name.lower()):
                self._happens = happens
            return whole(operation, number, first, *rest)

        monkeypatch.setattr(syscalls, "_call", call)

    def before(self, operation: str, happens: Callable[[], object]) -> None:
        """Once, before the first such call from now, which fails with what that raises."""
        self._once(lambda called: called == operation, happens)

    @contextmanager
    def at(self, number: int, happens: Callable[[], object]) -> Iterator[list[str]]:
        """As `before`, at any call; what is given has its name once it was made."""
        calls, met = list[str](), list[str]()

        def now(called: str) -> bool:
            calls.append(called)
            met[:] = calls[number:]
            return bool(met)

        self._once(now, happens)
        yield met
        self._happens = None

    def _once(self, now: Callable[[str], bool], happens: Callable[[], object]) -> None:
        def met(called: str) -> bool:
            if found := now(called):
                happens()
            return found

        self._happens = met


def fails(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise error_for(number, "a call")

    return fail


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def lets_nobody_link(keyring: Keyring) -> None:
    """As any program can that possesses it."""
    subprocess.run(["keyctl", "restrict_keyring", str(keyring.serial)], check=True)


def public(name: str) -> RsaPublicKey:
    return RsaPublicKey(65537, 1 << 2047 | int.from_bytes(name.encode(), "big") << 1 | 1)


def blob(name: str) -> bytes:
    return TEXT.write("ssh-rsa") + MPINT.write(public(name).e) + MPINT.write(public(name).n)


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the kernel signed: each key has a public half that is its description's."""
    limits = PkeyLimits(PkeyOp.SIGN | PkeyOp.DECRYPT, 2048, 256, 256, 256, 256)
    monkeypatch.setattr(AsymmetricKey, "limits", lambda *_: limits)
    monkeypatch.setattr(AsymmetricKey, "encrypt_raw", lambda *_: b"made")
    monkeypatch.setattr(adopted, "recover", lambda key: public(key.describe().description))


def test_an_open_key_is_there_for_all(keeper: KeeperRings, store: Store) -> None:
    loaded = load(keeper, store, OPEN)
    held = store.find(OPEN.blob)
    assert held is not None
    assert held.key is not None
    assert (held.identity, held.key.serial) == (OPEN, loaded.serial)
    assert names(anchor(keeper.shared)) == names(keeper.shared.lent) == pair(OPEN)
    assert not keeper.shared.private.keys()
    assert not store.ends_with_agent


def test_a_key_with_constraints_is_the_agents_alone(keeper: KeeperRings, store: Store) -> None:
    loaded = load(keeper, store, SECRET)
    held = store.find(SECRET.blob)
    assert held is not None
    assert held.key is not None
    assert (held.identity, held.key.serial) == (SECRET, loaded.serial)
    assert names(keeper.shared.private) == {("asymmetric", SECRET.description)}
    assert not names(keeper.shared.lent) | names(keeper.shared.anchor)
    assert store.ends_with_agent


@pytest.mark.parametrize("keeper", [Place.SESSION, Place.PRIVATE], indirect=True)
@pytest.mark.parametrize("custody", Custody)
@pytest.mark.parametrize("constraints", [(), (Confirm(),)], ids=["plain", "constrained"])
def test_others_are_shown_what_the_kernel_signs_with_without_constraints(
    store: Store, custody: Custody, constraints: tuple[Confirm, ...]
) -> None:
    shown = store.rings.place is Place.SESSION and custody is Custody.KERNEL and not constraints
    assert store.is_private(identity(constraints=constraints).replace(custody=custody)) != shown


@pytest.mark.parametrize("keeper", [Place.PRIVATE], indirect=True)
def test_an_agent_for_itself_shows_nobody_a_key(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    assert store.identities() == [OPEN]
    assert names(keeper.shared.private) == {("asymmetric", OPEN.description)}
    assert not names(keeper.shared.lent)
    assert store.remove(OPEN.blob) == []
    assert not store.identities()


def test_what_ends_with_the_agent(keeper: KeeperRings, store: Store) -> None:
    assert not store.ends_with_agent
    locked = keeper.shared.private.add("user", "kagent-lock", b"x")
    assert store.ends_with_agent
    keeper.shared.private.destroy(locked)
    fetched = key(OPEN, keeper.shared.fetched)
    assert store.ends_with_agent
    fetched.revoke()
    assert not store.ends_with_agent
    sealed = OPEN.replace(custody=Custody.SEALED)
    keeper.records.put(sealed.description, sealed.write())
    assert store.ends_with_agent


def test_in_the_order_in_which_they_were_added(keeper: KeeperRings, store: Store) -> None:
    for one in (OTHER, OPEN, identity("last", 9), identity("sealed", 5, constraints=(Confirm(),))):
        load(keeper, store, one)
    assert [one.comment for one in store.identities()] == ["open", "other", "sealed", "last"]
    assert [one.comment for one in store.all()] == ["open", "other", "sealed", "last"]
    again = store.in_its_place(OTHER.replace(order=100, comment="again"))
    assert again == OTHER.replace(comment="again")
    before = clock.now()
    assert before <= store.in_its_place(identity("new", 0)).order <= clock.now()


def test_constraints_end_what_was_held_without(
    keeper: KeeperRings, store: Store, elsewhere: Keyring
) -> None:
    """Also what somebody has linked away."""
    loaded = load(keeper, store, OPEN)
    elsewhere.link(loaded)
    load(keeper, store, OTHER)
    load(keeper, store, SECRET)
    assert not loaded.alive
    assert names(anchor(keeper.shared)) == names(keeper.shared.lent) == pair(OTHER)
    assert [one.constraints for one in store.identities()] == [(), SECRET.constraints]
    key(OPEN, anchor(keeper.shared))
    Anchor(anchor(keeper.shared)).record(OPEN)
    held = store.find(OPEN.blob)
    assert held is not None
    assert held.identity == SECRET
    assert [one.constraints for one in store.identities()] == [(), SECRET.constraints]


def test_a_key_that_is_loaded_again_ends_the_one_before(
    keeper: KeeperRings, store: Store, elsewhere: Keyring
) -> None:
    before = load(keeper, store, OPEN)
    elsewhere.link(before)
    after = load(keeper, store, OPEN.replace(comment="after"))
    assert not before.alive
    assert after.alive
    held = store.find(OPEN.blob)
    assert held is not None
    assert held.key is not None
    assert (held.identity.comment, held.key.serial) == ("after", after.serial)
    assert names(anchor(keeper.shared)) == names(keeper.shared.lent) == pair(OPEN)
    elsewhere.link(after)
    anchor(keeper.shared).clear()
    assert store.remove(OPEN.blob) == []
    assert not after.alive


def test_one_that_somebody_has_made_unknowable_ends_too(
    keeper: KeeperRings, store: Store, elsewhere: Keyring
) -> None:
    before = load(keeper, store, OPEN)
    elsewhere.link(before)
    before.set_permissions(mask(possessor=Permission.SEARCH | Permission.SETATTR))
    after = load(keeper, store, OPEN)
    assert not before.alive
    assert after.alive


def test_constraints_that_could_be_stepped_around_are_none(
    keeper: KeeperRings, store: Store, kernel: Kernel
) -> None:
    load(keeper, store, OPEN)
    kernel.before("invalidate", fails(errno.ENOMEM))
    with pytest.raises(StillThere, match="can't be removed"):
        load(keeper, store, SECRET)


@pytest.mark.parametrize("one", [OPEN, SECRET], ids=["open", "secret"])
def test_a_key_that_is_gone_meanwhile_is_not_held(
    keeper: KeeperRings, store: Store, one: Identity
) -> None:
    if one is SECRET:
        keeper.records.put(one.description, one.write())
    with pytest.raises(KeyNotFound, match="gone already"):
        store.settle(one, locked=False)


@pytest.mark.parametrize("held", [False, True], ids=["nothing", "one"])
@pytest.mark.parametrize("refused", [KeyServiceBlocked, PermissionDenied], ids=["where", "what"])
def test_where_it_can_not_be_shown_what_was_held_is_held_on(
    keeper: KeeperRings, store: Store, refused: type[KernelKeyError], held: bool
) -> None:
    before = load(keeper, store, OPEN) if held else None
    after = key(OPEN, keeper.shared.private)
    if refused is KeyServiceBlocked:
        lets_nobody_link(keeper.shared.make_anchor())
    else:
        after.set_permissions(mask(possessor=Permission.ALL & ~Permission.LINK))
    with pytest.raises(refused):
        store.settle(OPEN, locked=False)
    assert before is None or before.alive
    assert after.alive
    found = keeper.shared.lent.find("asymmetric", OPEN.description)
    assert (found and found.serial) == (before and before.serial)
    assert keeper.shared.private.keys() == (after.serial,)


def test_a_record_that_we_may_not_change_is_replaced(keeper: KeeperRings, store: Store) -> None:
    """Of what is in the anchor keyring others may have taken the rights."""
    load(keeper, store, OPEN)
    for one, about in keeper.shared.lent.described():
        if about.type in RECORD_TYPES:
            one.set_permissions(mask(possessor=Permission.ALL & ~Permission.WRITE))
    load(keeper, store, OPEN.replace(comment="after"))
    assert [one.comment for one in store.identities()] == ["after"]


def test_removed_is_removed_wherever_it_is_linked(
    keeper: KeeperRings, store: Store, elsewhere: Keyring
) -> None:
    removed, stays = load(keeper, store, OPEN), load(keeper, store, OTHER)
    for one in (removed, stays):
        elsewhere.link(one)
    anchor(keeper.shared).unlink(removed)
    assert store.remove(OPEN.blob) == []
    assert not removed.alive
    assert stays.alive
    assert store.identities() == [OTHER]
    secret = load(keeper, store, SECRET)
    assert store.remove(SECRET.blob) == []
    assert not secret.alive


def test_all_removed_are(keeper: KeeperRings, store: Store, elsewhere: Keyring) -> None:
    everything = [load(keeper, store, one) for one in (OTHER, SECRET)]
    elsewhere.link(everything[0])
    anchor(keeper.shared).clear()
    key(OPEN, keeper.shared.fetched)
    locked = keeper.shared.private.add("user", "kagent-lock", b"x")
    assert store.remove_all() == []
    assert [one.alive for one in everything] == [False, False]
    assert not keeper.shared.fetched.keys()
    assert locked.alive, "removing all keys doesn't unlock"


# What is in the anchor keyring: an earlier agent's, and what others do there.


def later(keeper: KeeperRings) -> Store:
    """Another agent, which has a hold on nothing yet."""
    lent = Keyring.create("lent", keeper.session)
    lent.set_permissions(POSSESSOR_ONLY)
    return Store(keeper.shared._replace(lent=lent))


def test_a_later_agent_takes_them_up(keeper: KeeperRings, store: Store, elsewhere: Keyring) -> None:
    for one in (OPEN, OTHER):
        load(keeper, store, one)
    another = later(keeper)
    assert another.identities() == [OPEN, OTHER]
    assert another.all() == [OPEN, OTHER]
    assert names(another.rings.lent) == pair(OPEN, OTHER)
    taken = anchor(keeper.shared).find("asymmetric", OPEN.description)
    assert taken is not None
    elsewhere.link(taken)
    anchor(keeper.shared).clear()
    another.take_up()
    assert another.remove(OPEN.blob) == []
    assert not taken.alive


@pytest.mark.parametrize("doing", ["remove", "remove_all", "withdraw", "tidy"])
def test_it_has_a_hold_on_them_before_it_does_a_thing(
    keeper: KeeperRings, store: Store, kernel: Kernel, doing: str
) -> None:
    load(keeper, store, OPEN)
    another = later(keeper)
    words = (OTHER.blob,) if doing == "remove" else ()
    held = list[set[tuple[str, str]]]()
    kernel.before("invalidate", lambda: held.append(names(another.rings.lent)))
    assert getattr(another, doing)(*words) == []
    assert held == ([pair(OPEN)] if doing == "remove_all" else [])
    expected = set() if doing == "remove_all" else pair(OPEN)
    assert names(another.rings.lent) == expected
    assert bool(names(anchor(keeper.shared))) == (doing in ("remove", "tidy"))


def test_nothing_takes_the_place_of_what_is_held(keeper: KeeperRings, store: Store) -> None:
    """One of that name may be forged: others can put it there."""
    held = load(keeper, store, OPEN)
    forged = key(OPEN, anchor(keeper.shared))
    assert forged.serial != held.serial
    store.take_up()
    found = keeper.shared.lent.find("asymmetric", OPEN.description)
    assert found is not None
    assert found.serial == held.serial


@pytest.mark.parametrize("resists", [False, True])
def test_what_was_made_unknowable_is_held_no_more(
    keeper: KeeperRings, store: Store, kernel: Kernel, resists: bool
) -> None:
    held = load(keeper, store, OPEN)
    held.set_permissions(mask(possessor=Permission.SEARCH | Permission.SETATTR))
    new = key(OTHER, anchor(keeper.shared))
    if resists:
        kernel.before("invalidate", fails(errno.ENOMEM))
    store.take_up()
    serials = set(keeper.shared.lent.keys())
    assert (held.serial in serials) == resists
    assert new.serial in serials


def test_an_anchor_that_nobody_may_read_is_passed_over(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    anchor(keeper.shared).set_permissions(mask(possessor=Permission.VIEW | Permission.SEARCH))
    store.take_up()
    assert names(keeper.shared.lent) == pair(OPEN)
    assert store.remove(OPEN.blob) == []


@pytest.mark.usefixtures("signing")
def test_what_others_have_put_there_comes_after_what_is_loaded(
    keeper: KeeperRings, store: Store
) -> None:
    """Once, and not what is where only an agent's own keys are."""
    login, mine = keeper.shared.login, Identity(blob("mine"), "mine", Custody.KERNEL, order=9)
    load(keeper, store, mine)
    by_hand = {name: AsymmetricKey.add(name, CERTIFICATE, login) for name in ("b", "a", "mine")}
    AsymmetricKey.add("anchored", CERTIFICATE, anchor(keeper.shared))
    assert [one.comment for one in store.all()] == ["mine", "a", "b"]
    held = store.find_adopted(blob("a"))
    assert held == Held(Identity(blob("a"), "a", Custody.KERNEL), by_hand["a"])
    assert store.find_adopted(blob("c")) is None


def test_nothing_is_computed_with_public_keys_of_others(
    keeper: KeeperRings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be many, and each can take a third of a second: by each list."""
    AsymmetricKey.add("a server's", CERTIFICATE, keeper.shared.login)
    used: list[AsymmetricKey] = []
    monkeypatch.setattr(AsymmetricKey, "encrypt_raw", lambda key, *_: used.append(key))
    assert store.adopted.all() == []
    assert not used


# The lock.


def test_withdrawn_and_put_back(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    load(keeper, store, OTHER)
    hidden = anchor(keeper.shared)
    foreign = hidden.add("user", "not kagent's", b"x")
    loaded = sorted(set(hidden.keys()) - {foreign.serial})
    assert store.withdraw() == []
    assert hidden.keys() == (foreign.serial,)
    assert store.identities() == []
    assert store.withdraw() == []  # once more, as after a crash
    load(keeper, store, OPEN, locked=True)
    assert hidden.keys() == (foreign.serial,)
    assert store.restore() == []
    assert names(hidden) == pair(OPEN, OTHER) | {("record", "not kagent's")}
    assert len(loaded) == len(pair(OPEN, OTHER))
    assert store.identities() == [OPEN, OTHER]
    assert not keeper.shared.withdrawn.keys()


def test_an_anchor_that_is_gone_is_made_anew(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    assert store.withdraw() == []
    keeper.shared.login.unlink(anchor(keeper.shared))
    assert store.withdraw() == []
    assert store.restore() == []
    assert store.identities() == [OPEN]


def test_what_can_not_be_kept_is_taken_all_the_same(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    lets_nobody_link(keeper.shared.withdrawn)
    faults = store.withdraw()
    assert len(faults) == len(pair(OPEN))
    assert all("will not be put back" in one for one in faults)
    assert not names(anchor(keeper.shared))


def test_what_it_can_get_no_hold_on_is_taken_all_the_same(
    keeper: KeeperRings, store: Store
) -> None:
    load(keeper, store, OPEN)
    another = later(keeper)
    lets_nobody_link(another.rings.lent)
    assert another.withdraw() == []
    assert not names(another.rings.lent)
    assert not names(anchor(keeper.shared))


def test_what_can_not_be_withdrawn_is_told(
    keeper: KeeperRings, store: Store, kernel: Kernel
) -> None:
    load(keeper, store, OPEN)
    hidden = anchor(keeper.shared)
    unwritable = mask(possessor=Permission.ALL & ~Permission.WRITE)
    kernel.before("unlink", lambda: hidden.set_permissions(unwritable))
    faults = store.withdraw()
    assert len(faults) == len(pair(OPEN))
    assert all("can't be withdrawn" in one for one in faults)


def test_what_has_no_room_is_put_back_another_time(
    keeper: KeeperRings, store: Store, kernel: Kernel
) -> None:
    load(keeper, store, OPEN)
    store.withdraw()
    kernel.before("link", fails(errno.EDQUOT))
    with pytest.raises(QuotaExceeded):
        store.restore()
    assert store.restore() == []
    assert names(anchor(keeper.shared)) == pair(OPEN)


def test_what_can_not_be_put_back_is_told(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    store.withdraw()
    lets_nobody_link(anchor(keeper.shared))
    faults = store.restore()
    assert len(faults) == len(pair(OPEN))
    assert all("can't be put back" in one for one in faults)
    assert not keeper.shared.withdrawn.keys()


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> trio.testing.MockClock:
    """A clock that is at once where somebody waits for it to be."""
    moments = trio.testing.MockClock(autojump_threshold=0)
    monkeypatch.setattr(clock, "now", lambda: round(moments.current_time() * clock.SECOND))
    return moments


def test_until_the_passphrase_comes_again(
    keeper: KeeperRings, store: Store, moments: trio.testing.MockClock
) -> None:
    load(keeper, store, OPEN)
    locked = lock.AgentLock(store)

    async def story() -> None:
        assert not locked.locked
        locked.check()
        assert not await locked.unlock(b"", 1)
        assert not await locked.lock(b"", 1)
        assert await locked.lock(b"right", 1)
        for attempt in (
            locked.lock(b"other", 1),
            locked.unlock(b"wrong", 1),
            locked.unlock(b"", 1),
        ):
            assert not await attempt
            assert locked.locked
            assert lock.AgentLock(store).locked, "a front that is started anew"
            assert store.identities() == []
            with pytest.raises(Refusal, match="locked"):
                locked.check()
        kept = keeper.shared.private.find("user", "kagent-lock")
        assert kept is not None
        assert kept.describe().permissions == POSSESSOR_ONLY
        assert b"right" not in kept.read()
        salt, verifier = kept.read()[:16], kept.read()[16:80]
        dear = Scrypt(salt, 64, n=2**14, r=8, p=1)  # RFC 7914: what it takes for who logs in
        assert dear.derive(b"right") == verifier
        assert await locked.unlock(b"right", 1)
        assert not locked.locked
        assert not lock.AgentLock(store).locked
        assert store.identities() == [OPEN]
        assert not await locked.unlock(b"right", 1)
        assert await locked.lock(b"another", 1)
        assert not await locked.unlock(b"right", 1)
        assert await locked.unlock(b"another", 1)

    trio.run(story, clock=moments)


def test_each_guess_is_slower_than_the_last(
    store: Store, moments: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a tenth of a second, up to ten; whatever is killed, and on however many connections."""
    monkeypatch.setattr(lock, "_COST", {"n": 2, "r": 1, "p": 1})  # for a hundred of them
    locked = lock.AgentLock(store)

    async def seconds(*guesses: bytes, patience: float = math.inf) -> float:
        began = trio.current_time()
        with trio.move_on_after(patience):
            async with trio.open_nursery() as nursery:
                for pid, guess in enumerate(guesses):
                    nursery.start_soon(locked.unlock, guess, pid)
        return trio.current_time() - began

    async def story() -> None:
        nonlocal locked
        await locked.lock(b"right", 1)
        for number in range(1, 4):
            assert await seconds(b"wrong") == pytest.approx(number / 10)
        assert await seconds(b"wrong", b"wrong") == pytest.approx(0.4 + 0.5)
        assert await seconds(b"wrong", patience=0.01) == pytest.approx(0.01)
        locked = lock.AgentLock(store)
        assert await seconds(b"wrong", b"wrong") == pytest.approx(0.6 - 0.01 + 0.7 + 0.8)
        for _ in range(9, 100):
            await seconds(b"wrong")
        for _ in range(3):
            assert await seconds(b"wrong") == pytest.approx(10)
        assert await seconds(b"right") == 0
        assert not locked.locked
        await locked.lock(b"right", 1)
        assert await seconds(b"wrong") == pytest.approx(0.1)

    trio.run(story, clock=moments)


def test_who_guesses_much_is_in_nobodys_way(store: Store, moments: trio.testing.MockClock) -> None:
    locked = lock.AgentLock(store)
    done = list[int]()

    async def guess(passphrase: bytes, pid: int) -> None:
        await locked.unlock(passphrase, pid)
        done.append(pid)

    async def story() -> None:
        assert await locked.lock(b"right", 1)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(guess, b"wrong", 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(guess, b"right", 2)

    trio.run(story, clock=moments)
    assert done == [1, 2, 1, 1, 1]


def test_of_many_that_lock_at_once_one_does(
    store: Store, moments: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each passphrase takes 16 MiB: only one is looked at at a time."""
    locked = lock.AgentLock(store)
    done, scrypt, one = list[bytes](), hashlib.scrypt, threading.Lock()

    def alone(passphrase: bytes, **cost: Any) -> bytes:
        assert one.acquire(blocking=False), "beside another"
        try:
            return scrypt(passphrase, **cost)
        finally:
            one.release()

    monkeypatch.setattr(hashlib, "scrypt", alone)

    async def attempt(passphrase: bytes, pid: int) -> None:
        if await locked.lock(passphrase, pid):
            done.append(passphrase)

    async def story() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(attempt, b"%d" % number, number)
        assert len(done) == 1
        assert await locked.unlock(done[0], 1)

    trio.run(story, clock=moments)


def test_what_a_killed_front_had_not_withdrawn(
    keeper: KeeperRings, store: Store, moments: trio.testing.MockClock
) -> None:
    trio.run(lock.AgentLock(store).lock, b"right", 1, clock=moments)
    load(keeper, store, OPEN)
    assert store.identities() == [OPEN]
    assert lock.AgentLock(store).locked
    assert store.identities() == []


def test_what_a_lock_can_not_do_is_logged(
    keeper: KeeperRings,
    store: Store,
    moments: trio.testing.MockClock,
    capfd: pytest.CaptureFixture[str],
) -> None:
    locked = lock.AgentLock(store)
    load(keeper, store, OPEN)
    trio.run(locked.lock, b"right", 1, clock=moments)
    lets_nobody_link(anchor(keeper.shared))
    trio.run(locked.unlock, b"right", 1, clock=moments)
    assert "can't be put back" in capfd.readouterr().err
    assert not locked.locked
    keeper.shared.login.unlink(anchor(keeper.shared))
    load(keeper, store, OTHER)
    lets_nobody_link(keeper.shared.withdrawn)
    trio.run(locked.lock, b"right", 1, clock=moments)
    assert "will not be put back" in capfd.readouterr().err
    assert locked.locked
    assert not names(keeper.shared.anchor)


# After a front was killed, or a load has failed.


def test_what_a_killed_front_has_left(
    keeper: KeeperRings, store: Store, elsewhere: Keyring
) -> None:
    """The key is held where its record says, and nowhere else."""
    left = load(keeper, store, OPEN)
    elsewhere.link(left)
    secret = key(SECRET, keeper.shared.private)
    keeper.records.put(SECRET.description, SECRET.write())
    unknown = key(OTHER, keeper.shared.private)
    key(identity("ended"), keeper.shared.private).revoke()
    locked = keeper.shared.private.add("user", "kagent-lock", b"x")
    assert store.tidy() == []
    assert not left.alive
    assert secret.alive
    assert not unknown.alive
    assert locked.alive
    assert store.identities() == [SECRET]


def test_a_key_that_resists_keeps_nobody_from_the_rest(
    keeper: KeeperRings, store: Store, kernel: Kernel
) -> None:
    """Nothing signs with one without a record."""
    unknown = key(OTHER, keeper.shared.private)
    kernel.before("invalidate", fails(errno.ENOMEM))
    assert store.tidy() == []
    assert unknown.alive
    assert store.tidy() == []
    assert not unknown.alive


@pytest.mark.usefixtures("signing")
def test_what_is_constrained_by_now_is_not_left_to_others(
    keeper: KeeperRings, store: Store
) -> None:
    plain = Identity(blob("plain"), "plain", Custody.SEALED)
    secret = Identity(blob("secret"), "secret", Custody.SEALED, constraints=(Confirm(),))
    for one in (plain, secret):
        keeper.records.put(one.description, one.write())
    theirs, gone = (
        AsymmetricKey.add(one.comment, CERTIFICATE, keeper.shared.login) for one in (plain, secret)
    )
    assert store.tidy() == []
    assert theirs.alive
    assert not gone.alive


def test_a_load_that_failed_leaves_nothing(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    secret = key(SECRET, keeper.shared.private)
    store.leave_nothing_beside(SECRET)
    assert secret.alive
    assert not names(keeper.shared.lent) | names(keeper.shared.anchor)
    store.leave_nothing_of(SECRET)
    assert not secret.alive


def test_there_is_something_of_it(keeper: KeeperRings, store: Store) -> None:
    assert not store.has_some_of(OPEN.blob)
    load(keeper, store, OPEN)
    assert store.has_some_of(OPEN.blob)
    assert not store.has_some_of(OTHER.blob)
    keeper.records.put(OTHER.description, b"damaged")
    assert store.has_some_of(OTHER.blob)
    with pytest.raises(ProtocolError):
        store.find(OTHER.blob)
    assert store.find_readable(OTHER.blob) is None
    assert store.find_readable(OPEN.blob) is not None


# At any moment: there may be no memory, and others may take away what they can write to.


def with_what_another_agent_has_loaded(keeper: KeeperRings) -> tuple[Store, dict[str, Key]]:
    """An agent anew, that has loaded a key too, and all that others can end of the other."""
    shared = keeper.shared
    for keyring in (shared.private, shared.lent, shared.withdrawn, shared.login):
        keyring.clear()
    wait_for_room()
    store, kept = Store(shared), Keyring.create("kept", keeper.session)
    kept.link(load(keeper, store, OPEN))
    ring = anchor(shared)
    return store, {"ring": ring, "key": key(OTHER, ring), "record": Anchor(ring).record(OTHER)}


@pytest.mark.parametrize("doing", ["find_readable", "take_up", "withdraw", "restore"])
def test_without_memory_nothing_is_taken_for_gone(
    keeper: KeeperRings, kernel: Kernel, doing: str
) -> None:
    """It is told; and done again, it is done."""
    words = (OPEN.blob,) if doing == "find_readable" else ()
    for number in itertools.count():
        store, _ = with_what_another_agent_has_loaded(keeper)
        if doing == "restore":
            store.withdraw()
        told = True
        with kernel.at(number, fails(errno.ENOMEM)) as met, suppress(NothingFoundOut):
            getattr(store, doing)(*words)
            told = False
        if not met:
            break
        assert told or met == ["link"], "what it can get no hold on is for another time"
        again = getattr(store, doing)(*words)
        assert again if doing == "find_readable" else not again
        if doing == "withdraw":
            assert not names(store.rings.anchor)
            assert store.restore() == []
        assert names(store.rings.anchor) == pair(OPEN, OTHER)
        assert store.identities() == [OPEN, OTHER]


@pytest.mark.parametrize("what", ["ring", "key", "record"])
@pytest.mark.parametrize("doing", ["find_readable", "take_up", "withdraw", "tidy"])
def test_what_goes_away_meanwhile_is_gone(
    keeper: KeeperRings, kernel: Kernel, doing: str, what: str
) -> None:
    words = (OTHER.blob,) if doing == "find_readable" else ()
    for number in itertools.count():
        store, parts = with_what_another_agent_has_loaded(keeper)
        with kernel.at(number, parts[what].revoke) as met:
            getattr(store, doing)(*words)
        if not met:
            break
        assert store.rings.lent.find("asymmetric", OPEN.description)
        if doing == "withdraw":
            assert not names(store.rings.anchor)


def test_removing_all_does_not_wait_for_memory(keeper: KeeperRings, kernel: Kernel) -> None:
    store = Store(keeper.shared)
    loaded = load(keeper, store, OPEN)
    kernel.before("read", fails(errno.ENOMEM))
    assert [one.split(":")[0] for one in store.remove_all()] == [
        "it can't be found out what another agent has loaded"
    ]
    assert not loaded.alive


# What ends with the agent.


def test_what_the_ledger_offers(keeper: KeeperRings, store: Store) -> None:
    sealed = identity("sealed", 4).replace(custody=Custody.SEALED)
    ended = identity("ended", 5).replace(custody=Custody.SEALED, deadline=1)
    keeper.records.put(OTHER.description, b"damaged")
    for one in (sealed, ended, SECRET):  # of the last the kernel has no key
        keeper.records.put(one.description, one.write())
    keeper.records.put(identity("another").description, b"damaged")
    assert store.identities() == [sealed]
    held = store.find(sealed.blob)
    assert held is not None
    assert held.key is None
    assert store.find(ended.blob) is None
    assert store.find(SECRET.blob) is None
    assert store.find(b"unknown") is None


def test_an_unlock_that_is_all_but_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock has ended, and there is no memory to see whether it is still in its keyring."""
    locked = lock.AgentLock(store)
    assert trio.run(locked.lock, b"right", 1)
    key, whole = store.rings.private.find("user", LOCK_NAME), Keyring.keys
    assert key is not None

    def keys(keyring: Keyring) -> Sequence[int]:
        if not key.alive:
            raise NothingFoundOut(errno.ENOMEM, "read")
        return whole(keyring)

    monkeypatch.setattr(Keyring, "keys", keys)
    assert trio.run(locked.unlock, b"right", 1)
    assert not locked.locked
    monkeypatch.undo()
    assert not lock.AgentLock(store).locked, "a front that is started anew"


def test_a_lock_that_can_not_be_undone_is_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without memory no keyring can be read: keys can't be withdrawn, nor put back."""
    locked = lock.AgentLock(store)

    def keys(keyring: Keyring) -> Sequence[int]:
        raise NothingFoundOut(errno.ENOMEM, "read")

    monkeypatch.setattr(Keyring, "keys", keys)
    assert trio.run(locked.lock, b"right", 1), "who asked knows that it takes the passphrase"
    assert locked.locked
    assert "may still be in others' reach" in capfd.readouterr().err
    monkeypatch.undo()
    assert trio.run(locked.unlock, b"right", 1)
    assert not locked.locked


def fails_the_second_time(
    monkeypatch: pytest.MonkeyPatch, doing: str, keyring: Keyring, error: type[KernelKeyError]
) -> None:
    """What is done there the second time fails, and not again."""
    whole, times = getattr(Keyring, doing), Counter[int]()

    def done(one: Keyring, key: Key) -> None:
        times[one.serial] += 1
        if (one, times[one.serial]) == (keyring, 2):
            raise error(errno.ENOMEM, doing)
        whole(one, key)

    monkeypatch.setattr(Keyring, doing, done)


def test_where_it_can_not_be_locked_nothing_has_been(
    keeper: KeeperRings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = lock.AgentLock(store)
    load(keeper, store, OPEN)
    fails_the_second_time(monkeypatch, "unlink", anchor(keeper.shared), NothingFoundOut)
    with pytest.raises(NothingFoundOut):
        trio.run(locked.lock, b"right", 1)
    assert not locked.locked
    assert not lock.AgentLock(store).locked, "a front that is started anew"
    assert names(anchor(keeper.shared)) == pair(OPEN)


def test_what_is_put_back_by_half_is_withdrawn(
    keeper: KeeperRings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is locked yet: whether it could be unlocked no more, or not even be locked."""
    locked = lock.AgentLock(store)
    load(keeper, store, OPEN)
    there = anchor(keeper.shared)
    fails_the_second_time(monkeypatch, "unlink", there, NothingFoundOut)
    fails_the_second_time(monkeypatch, "link", there, QuotaExceeded)
    assert trio.run(locked.lock, b"right", 1)
    assert locked.locked
    assert not names(there)
    fails_the_second_time(monkeypatch, "link", there, QuotaExceeded)
    with pytest.raises(QuotaExceeded):
        trio.run(locked.unlock, b"right", 1)
    assert locked.locked
    assert not names(there)
    assert trio.run(locked.unlock, b"right", 1)
    assert names(there) == pair(OPEN)
