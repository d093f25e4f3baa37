"""Where keys are held, in real keyrings: what others reach of them, and what ends when.

This kernel need not sign: what it takes for a key of that name is a certificate.
"""

from __future__ import annotations

import datetime
import errno
import math
import resource
import subprocess
from collections.abc import Iterator, Sequence

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from kagent.custody import clock
from kagent.custody.anchor import RECORD_TYPES, Anchor
from kagent.custody.identity import Custody, Identity
from kagent.custody.rings import LOCK_NAME, POSSESSOR_ONLY, KeeperRings, Place, Rings
from kagent.custody.store import Store
from kagent.front import lock
from kagent.keyctl import (
    AsymmetricKey,
    KernelKeyError,
    Key,
    KeyNotFound,
    Keyring,
    NothingFoundOut,
    Permission,
    join_anonymous_session,
    mask,
)
from kagent.protocol.constraints import Confirm
from kagent.protocol.wire import ProtocolError


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


@pytest.fixture
def keeper(request: pytest.FixtureRequest) -> Iterator[KeeperRings]:
    """An agent's keyrings, in a login of their own."""
    join_anonymous_session()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    keeper = KeeperRings.enter(getattr(request, "param", Place.SESSION))
    yield keeper
    for keyring in (keeper.shared.private, keeper.shared.lent, keeper.shared.withdrawn):
        keyring.clear()
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


def identity(name: str = "a", order: int = 1, **more: object) -> Identity:
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


def lets_nobody_link(keyring: Keyring) -> None:
    """As any program can that possesses it."""
    subprocess.run(["keyctl", "restrict_keyring", str(keyring.serial)], check=True)


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


@pytest.mark.parametrize("one", [OPEN, SECRET], ids=["open", "secret"])
def test_a_key_that_is_gone_meanwhile_is_not_held(
    keeper: KeeperRings, store: Store, one: Identity
) -> None:
    if one is SECRET:
        keeper.records.put(one.description, one.write())
    with pytest.raises(KeyNotFound, match="gone already"):
        store.settle(one, locked=False)


def test_where_it_can_not_be_shown_what_was_held_is_held_on(
    keeper: KeeperRings, store: Store
) -> None:
    before = load(keeper, store, OPEN)
    lets_nobody_link(anchor(keeper.shared))
    after = key(OPEN, keeper.shared.private)
    with pytest.raises(KernelKeyError):
        store.settle(OPEN, locked=False)
    assert before.alive
    assert after.alive
    found = keeper.shared.lent.find("asymmetric", OPEN.description)
    assert found is not None
    assert found.serial == before.serial
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
    another.take_up()
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
    keeper: KeeperRings, store: Store, doing: str
) -> None:
    load(keeper, store, OPEN)
    another = later(keeper)
    words = (OTHER.blob,) if doing == "remove" else ()
    assert getattr(another, doing)(*words) == []
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


def test_what_was_made_unknowable_is_held_no_more(keeper: KeeperRings, store: Store) -> None:
    held = load(keeper, store, OPEN)
    held.set_permissions(mask(possessor=Permission.SEARCH | Permission.SETATTR))
    new = key(OTHER, anchor(keeper.shared))
    store.take_up()
    serials = set(keeper.shared.lent.keys())
    assert held.serial not in serials
    assert new.serial in serials


def test_an_anchor_that_nobody_may_read_is_passed_over(keeper: KeeperRings, store: Store) -> None:
    load(keeper, store, OPEN)
    anchor(keeper.shared).set_permissions(mask(possessor=Permission.VIEW | Permission.SEARCH))
    store.take_up()
    assert names(keeper.shared.lent) == pair(OPEN)
    assert store.remove(OPEN.blob) == []


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
        assert not await locked.unlock(b"", 1)
        assert not await locked.lock(b"")
        assert await locked.lock(b"right")
        for attempt in (locked.lock(b"other"), locked.unlock(b"wrong", 1), locked.unlock(b"", 1)):
            assert not await attempt
            assert locked.locked
            assert lock.AgentLock(store).locked, "a front that is started anew"
            assert store.identities() == []
        kept = keeper.shared.private.find("user", "kagent-lock")
        assert kept is not None
        assert kept.describe().permissions == POSSESSOR_ONLY
        assert b"right" not in kept.read()
        assert await locked.unlock(b"right", 1)
        assert not locked.locked
        assert not lock.AgentLock(store).locked
        assert store.identities() == [OPEN]
        assert not await locked.unlock(b"right", 1)
        assert await locked.lock(b"another")
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
        await locked.lock(b"right")
        for number in range(1, 4):
            assert await seconds(b"wrong") == pytest.approx(number / 10)
        assert await seconds(b"wrong", b"wrong") == pytest.approx(0.4 + 0.5)
        assert await seconds(b"wrong", patience=0.01) == pytest.approx(0.01)
        locked = lock.AgentLock(store)
        assert await seconds(b"wrong") == pytest.approx(0.6 - 0.01 + 0.7)
        for _ in range(8, 100):
            await seconds(b"wrong")
        for _ in range(3):
            assert await seconds(b"wrong") == pytest.approx(10)
        assert await seconds(b"right") == 0
        assert not locked.locked
        await locked.lock(b"right")
        assert await seconds(b"wrong") == pytest.approx(0.1)

    trio.run(story, clock=moments)


def test_of_two_that_lock_at_once_one_does(store: Store, moments: trio.testing.MockClock) -> None:
    locked = lock.AgentLock(store)
    done = list[bytes]()

    async def attempt(passphrase: bytes) -> None:
        if await locked.lock(passphrase):
            done.append(passphrase)

    async def story() -> None:
        async with trio.open_nursery() as nursery:
            for passphrase in (b"one", b"other"):
                nursery.start_soon(attempt, passphrase)
        assert len(done) == 1
        assert await locked.unlock(done[0], 1)

    trio.run(story, clock=moments)


def test_what_a_killed_front_had_not_withdrawn(
    keeper: KeeperRings, store: Store, moments: trio.testing.MockClock
) -> None:
    trio.run(lock.AgentLock(store).lock, b"right", clock=moments)
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
    trio.run(locked.lock, b"right", clock=moments)
    lets_nobody_link(anchor(keeper.shared))
    trio.run(locked.unlock, b"right", 1, clock=moments)
    assert "can't be put back" in capfd.readouterr().err
    assert not locked.locked
    keeper.shared.login.unlink(anchor(keeper.shared))
    load(keeper, store, OTHER)
    lets_nobody_link(keeper.shared.withdrawn)
    trio.run(locked.lock, b"right", clock=moments)
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
    locked = keeper.shared.private.add("user", "kagent-lock", b"x")
    assert store.tidy() == []
    assert not left.alive
    assert secret.alive
    assert not unknown.alive
    assert locked.alive
    assert store.identities() == [SECRET]


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
    assert trio.run(locked.lock, b"right")
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
    assert trio.run(locked.lock, b"right"), "who asked knows that it takes the passphrase"
    assert locked.locked
    assert "may still be in others' reach" in capfd.readouterr().err
    monkeypatch.undo()
    assert trio.run(locked.unlock, b"right", 1)
    assert not locked.locked
