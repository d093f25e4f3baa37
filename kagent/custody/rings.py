"""The keyrings of an agent.  Which process possesses which stands in `jobs.roles`.

login
    The session that the agent was started in.  Whoever is in that session possesses it.
user
    The user's own keyring, which has every session of the user that pam_keyinit has made.
home
    Where the anchor keyring is: one of the two above, or the user's persistent keyring, or private.
private
    Kernel keys that nobody may use around the agent, and the lock.
lent
    The agent's own hold on what is in the anchor keyring, where others can take keys away: what is
    removed here ends wherever they have linked it.
withdrawn
    What of that a lock has taken out of the anchor keyring, to be put back.
fetched
    The keys of configured identities, which are fetched again when they are gone.
sealed
    The key that opens sealed keys.
inbox
    A new kernel key on its way, for the length of one load.

What needs no kernel key is on shelves: the records of all identities that end with the agent, which
keeper and front have; sealed keys as ciphertext, which keeper and sign workers have; and the
handles of keys that are in FIDO tokens, with the libraries that talk to them.

What a process doesn't possess gives it EACCES for everything, whatever it knows of serials: the
keys' permissions name the possessor alone.  All but the first three are the keeper's, and end with
it.  What is in the first three, or has ever been, others can write to: it is never believed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from ..keyctl import (
    PROCESS_KEYRING,
    USER_KEYRING,
    Description,
    KernelKeyError,
    Key,
    Keyring,
    NothingFoundOut,
    Permission,
    Quota,
    SessionUnusable,
    enter_private_session,
    mask,
    persistent_keyring,
    session_keyring,
    syscalls,
)
from .identity import PREFIX, Custody
from .shelf import OwnShelf, Shelf

POSSESSOR_ONLY = mask(possessor=Permission.ALL)

# What add_key gives a keyring.
ANCHOR = mask(possessor=Permission.ALL, user=Permission.VIEW)

# Not under the prefix of identities: removing all of those must not unlock.
LOCK_NAME = "kagent-lock"

_SEALING_NAME = "kagent-sealing"

# What the kernel takes to collect keys, at most, in seconds.
_TRIES, _MOMENT = 50, 0.02


class Place(StrEnum):
    """Where keys without constraints are anchored.  Who can use them around the agent:

    session: whoever is in this login; they end with it.
    user: every process of the user; they end when the machine does (since Linux 5.3).
    persistent: every process of the user; they end three days after the last agent.
    private: nobody; they end with the agent.

    In all but the last another agent takes them up again.
    """

    SESSION = "session"
    USER = "user"
    PERSISTENT = "persistent"
    PRIVATE = "private"

    @property
    def anchor_name(self) -> str:
        """What the keyring with an agent's unconstrained keys is called there."""
        return f"{PREFIX}{self}"


def own_keyring(name: str, within: Keyring, permissions: int = ANCHOR) -> Keyring | None:
    """The keyring of that name that is linked directly in `within`, if it is this user's own.

    Never one further below, nor one with other permissions than we give: somebody else may have put
    it there, to have keys where others reach them or where we can't take them away.
    """
    found = within.find("keyring", name)
    if found is None:
        return None
    try:
        about = found.describe()
    except NothingFoundOut:
        raise
    except KernelKeyError:
        return None
    ours = about.uid == os.getuid() and about.permissions == permissions
    return Keyring(found.serial) if ours else None


class Rings(NamedTuple):
    """What keeper and front share."""

    place: Place
    login: Keyring
    user: Keyring
    home: Keyring
    private: Keyring
    lent: Keyring
    withdrawn: Keyring
    fetched: Keyring
    records: Shelf

    @property
    def anchor(self) -> Keyring | None:
        """The keyring with this agent's unconstrained keys, if it is there."""
        if self.place is Place.PRIVATE:
            return None
        return own_keyring(self.place.anchor_name, self.home)

    def make_anchor(self) -> Keyring:
        """That keyring, made if it isn't there."""
        if found := self.anchor:
            return found
        made = Keyring.create(self.place.anchor_name, self.home)
        made.set_permissions(ANCHOR)
        return made

    @property
    def around(self) -> list[Keyring]:
        """What others possess too; without what is gone, as a session is after logout."""
        keyrings = dict.fromkeys((self.login, self.user, self.home))
        return [one for one in keyrings if one != self.private and one.alive]

    def follow_home(self) -> None:
        """Let go of what is lent once its login has ended, as the keys there have."""
        if self.lent.keys() and not self.home.alive:
            destroy_in(self.lent)
            self.withdrawn.clear()

    def remove_all(self) -> list[str]:
        """Destroy all that an agent has loaded and had fetched, wherever it is linked.

        Nothing is read of it, since others may have written it.  What could not be removed, in
        words: one key that resists doesn't keep the others.
        """
        faults = destroy_in(self.private, but=LOCK_NAME) + destroy_in(self.lent)

        def destroy_anchored() -> None:
            if anchor := self.anchor:
                faults.extend(destroy_in(anchor))

        # What is being fetched would be waited for; and nobody can link these away.
        for step in (destroy_anchored, self.withdrawn.clear, self.fetched.clear):
            try:
                step()
            except KernelKeyError as error:
                faults.append(f"a keyring can't be emptied: {error}")
        return faults


def keys_in(
    keyring: Keyring, description: str | None = None
) -> Iterator[tuple[Key, Description | None]]:
    """The keys of that description, or all, that are linked directly here.

    Also those that can't be described: all that can be ours we can describe, unless it has ended,
    or somebody doesn't want us to.  Raises NothingFoundOut.
    """
    try:
        serials = keyring.keys()
    except NothingFoundOut:
        raise
    except KernelKeyError:
        return  # it is gone, as a session is after logout
    for serial in serials:
        key = Key(serial)
        try:
            about = key.describe()
        except NothingFoundOut:
            raise
        except KernelKeyError:
            yield key, None
            continue
        if description in (None, about.description):
            yield key, about


def destroy_in(keyring: Keyring, description: str | None = None, *, but: str = "") -> list[str]:
    """Destroy what `keys_in` finds but for one, and unlink what is other users'.

    What could not be done, in words: a key that resists doesn't keep the others.
    """
    faults = []
    try:
        found = list(keys_in(keyring, description))
    except KernelKeyError as error:
        return [f"it can't be found out what keyring {keyring.serial} has: {error}"]
    for key, about in found:
        try:
            if about is None or about.uid == os.getuid():
                if about is None or about.description != but:
                    keyring.destroy(key)
            else:
                keyring.unlink(key)
        except KernelKeyError as error:
            faults.append(f"key {key.serial} can't be removed: {error}")
    return faults


def destroy_in_all(keyrings: Iterable[Keyring], description: str) -> list[str]:
    """As `destroy_in`, in each of them."""
    return [fault for keyring in keyrings for fault in destroy_in(keyring, description)]


class KeeperRings(NamedTuple):
    """What the keeper has: what it shares, its own session keyring, and what signs."""

    shared: Rings
    session: Keyring
    sealing: Keyring
    records: OwnShelf
    sealed: OwnShelf
    handles: OwnShelf

    @classmethod
    def enter(cls, place: Place) -> KeeperRings:
        """Make an agent's keyrings and possess them.  Raises KernelKeyError and OSError."""
        user = Keyring.special(USER_KEYRING)
        process = Keyring.special(PROCESS_KEYRING, create=True)
        names = ("private", "lent", "withdrawn", "fetched", "sealed")
        own = [_new(name, process) for name in names]
        private, lent, withdrawn, fetched, sealing = own
        try:
            login = session_keyring()
        except SessionUnusable:
            if place is Place.SESSION:
                raise
            login = private  # there is none, and so nothing in it
        match place:
            case Place.SESSION:
                home = login
            case Place.USER:
                home = user
            case Place.PERSISTENT:
                home = persistent_keyring(process)
            case Place.PRIVATE:
                home = private
        records, sealed, handles = (OwnShelf() for _ in range(3))
        shared = Rings(place, login, user, home, private, lent, withdrawn, fetched, records.reader)
        session = enter_private_session(*own, besides=shared.around)
        return cls(shared, session, sealing, records, sealed, handles)

    def renew(self) -> None:
        """Put off the end of a persistent keyring, which comes three days after its last use.

        Using the keys in it doesn't count as use.  Raises KernelKeyError.
        """
        if self.shared.place is Place.PERSISTENT:
            persistent_keyring(self.session)

    def give_back(self) -> None:
        """Let go of all that counts against the user's quota, as the agent ends.

        What is let go of counts until it is collected, for which this waits a moment: who starts
        another agent then has room.  Raises KernelKeyError.
        """
        shared, before = self.shared, Quota.of(os.getuid())
        own = (shared.private, shared.lent, shared.withdrawn, shared.fetched, self.sealing)
        ours = len(own) + sum(len(keyring.keys()) for keyring in (shared.private, self.sealing))
        for keyring in (*own, self.session):
            keyring.clear()
        for _ in range(_TRIES):
            now = Quota.of(os.getuid())
            if before is None or now is None or now.keys <= before.keys - ours:
                break
            time.sleep(_MOMENT)

    def new_inbox(self, number: int) -> Keyring:
        """A keyring for what a load brings."""
        return _new(f"inbox:{number}", self.session)

    def empty_inbox(self, inbox: Keyring, description: str) -> None:
        """Take over the kernel key that a load has left for the identity of that description.

        By its name and type alone: nothing is read of it.  Raises KernelKeyError or ValueError.
        """
        left = list(inbox.described())
        if len(left) != 1:
            raise ValueError(f"a load has left {len(left)} keys")
        key, about = left[0]
        if (about.type, about.description) != ("asymmetric", description):
            raise ValueError(f"a load has left {about.type} {about.description}")
        inbox.move(key, self.shared.private)

    def take(self, custody: Custody, description: str, content: bytes) -> None:
        """Take over the sealed key, or a token's handle, of that identity.  Raises OSError."""
        (self.sealed if custody is Custody.SEALED else self.handles).put(description, content)

    def has(self, custody: Custody, description: str) -> bool:
        """Whether there is something in that custody that signs for that identity."""
        match custody:
            case Custody.KERNEL:
                return self.shared.private.find("asymmetric", description) is not None
            case Custody.SEALED:
                return description in self.sealed
            case Custody.DEVICE:
                return description in self.handles
            case _:  # not held here
                return False

    def remove(self, custody: Custody, description: str) -> list[str]:
        """Destroy what signs for that identity in that custody; the faults, in words."""
        match custody:
            case Custody.KERNEL:
                return destroy_in(self.shared.private, description)
            case Custody.SEALED:
                self.sealed.remove(description)
            case Custody.DEVICE:
                self.handles.remove(description)
        return []

    def forget(self, description: str, but: Custody | None = None) -> list[str]:
        """Destroy what signs for that identity, as whatever it is held; the faults, in words.

        With its record, unless it goes on in custody `but`.
        """
        if but is None:
            self.records.remove(description)
        others = [custody for custody in Custody if custody is not but]
        return [fault for custody in others for fault in self.remove(custody, description)]

    def forget_all(self) -> None:
        """As `forget`, of all identities, but for the keys in the private ring."""
        for shelf in (self.records, self.sealed, self.handles):
            shelf.clear()

    def remove_all(self) -> list[str]:
        """Destroy all keys; the faults, in words."""
        self.forget_all()
        return self.shared.remove_all()


def make_sealing_key(keyring: Keyring) -> None:
    """Have in `keyring` the key that opens sealed keys: of random bytes that nobody knows."""
    key = keyring.add("user", _SEALING_NAME, os.urandom(32))
    key.set_permissions(POSSESSOR_ONLY)


def find_sealing_key(keyring: Keyring) -> Key:
    """That key.  Raises KernelKeyError."""
    return Key(syscalls.search(keyring.serial, "user", _SEALING_NAME))


def sealing_key(keyring: Keyring) -> bytearray:
    """Its bytes, to be overwritten; for who seals a key or opens one.  Raises KernelKeyError."""
    return syscalls.read_secret(find_sealing_key(keyring).serial)


def _new(name: str, within: Keyring) -> Keyring:
    keyring = Keyring.create(PREFIX + name, within)
    keyring.set_permissions(POSSESSOR_ONLY)
    return keyring
