"""The keyrings of an agent.  Which process possesses which stands in `jobs.roles`.

login
    The session that the agent was started in.  Whoever is in that session possesses it.
user
    The user's own keyring, which has every session of the user that pam_keyinit has made.
home
    Where the anchor keyring is: one of the two above, or the user's persistent keyring, or private.
private
    Records and kernel keys that nobody may use around the agent, and the lock.
lent
    The agent's own hold on what is in the anchor keyring, where others can take keys away: what is
    removed here ends wherever they have linked it.
withdrawn
    What of that a lock has taken out of the anchor keyring, to be put back.
fetched
    The keys of configured identities, which are fetched again when they are gone.
sealed
    The keys that sign workers sign with.
devices
    The handles of keys that are in FIDO tokens, with the libraries that talk to them.
inbox
    A new key on its way, for the length of one load.

What a process doesn't possess gives it EACCES for everything, whatever it knows of serials: the
keys' permissions name the possessor alone.  All but the first three are the keeper's, and end with
it.  What is in the first three, or has ever been, others can write to: it is never believed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..keyctl import (
    PROCESS_KEYRING,
    USER_KEYRING,
    Description,
    KernelKeyError,
    Key,
    Keyring,
    Permission,
    SessionUnusable,
    enter_private_session,
    mask,
    persistent_keyring,
    session_keyring,
    syscalls,
)
from .identity import PREFIX

POSSESSOR_ONLY = mask(possessor=Permission.ALL)

# What add_key gives a keyring.
ANCHOR = mask(possessor=Permission.ALL, user=Permission.VIEW)

# Not under the prefix of identities: removing all of those must not unlock.
LOCK_NAME = "kagent-lock"


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
    except KernelKeyError:
        return None
    ours = about.uid == os.getuid() and about.permissions == permissions
    return Keyring(found.serial) if ours else None


@dataclass(frozen=True)
class Rings:
    """What keeper and front share."""

    place: Place
    login: Keyring
    user: Keyring
    home: Keyring
    private: Keyring
    lent: Keyring
    withdrawn: Keyring
    fetched: Keyring

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
        faults = destroy_in(self.private, but=LOCK_NAME)
        for keyring in filter(None, (self.lent, self.anchor)):
            faults += destroy_in(keyring)
        self.withdrawn.clear()
        # What is being fetched would be waited for; and nobody can link these away.
        self.fetched.clear()
        return faults


def keys_in(
    keyring: Keyring, description: str | None = None
) -> Iterator[tuple[Key, Description | None]]:
    """The keys of that description, or all, that are linked directly here.

    Also those that can't be described: all that can be ours we can describe, unless it has ended,
    or somebody doesn't want us to.
    """
    try:
        serials = keyring.keys()
    except KernelKeyError:
        return  # it is gone, as a session is after logout
    for serial in serials:
        key = Key(serial)
        try:
            about = key.describe()
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
    for key, about in keys_in(keyring, description):
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


@dataclass(frozen=True)
class KeeperRings:
    """What the keeper has: what it shares, its own session keyring, and what signs."""

    shared: Rings
    session: Keyring
    sealed: SigningRing
    devices: SigningRing

    @classmethod
    def enter(cls, place: Place) -> KeeperRings:
        """Make an agent's keyrings and possess them.  Raises KernelKeyError."""
        user = Keyring.special(USER_KEYRING)
        process = Keyring.special(PROCESS_KEYRING, create=True)
        names = ("private", "lent", "withdrawn", "fetched", "sealed", "devices")
        own = [_new(name, process) for name in names]
        private, lent, withdrawn, fetched, sealed, devices = own
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
        shared = Rings(place, login, user, home, private, lent, withdrawn, fetched)
        session = enter_private_session(*own, besides=shared.around)
        return cls(shared, session, SigningRing.sealed(sealed), SigningRing.devices(devices))

    def renew(self) -> None:
        """Put off the end of a persistent keyring, which comes three days after its last use.

        Using the keys in it doesn't count as use.  Raises KernelKeyError.
        """
        if self.shared.place is Place.PERSISTENT:
            persistent_keyring(self.session)

    def new_inbox(self, number: int) -> Keyring:
        """A keyring for what load number `number` brings."""
        return _new(f"inbox:{number}", self.session)

    def drop_inbox(self, inbox: Keyring) -> None:
        """Throw it away, with what is in it."""
        destroy_in(inbox)
        self.session.unlink(inbox)

    def empty_inbox(self, inbox: Keyring, description: str) -> None:
        """Take over the key that a load has left for the identity of that description.

        By its name and type alone: nothing is read of it.  Raises KernelKeyError or ValueError,
        with nothing kept.
        """
        try:
            [(key, about)] = inbox.described()
            homes = {
                (self.sealed.type, self.sealed.name(description)): self.sealed.keyring,
                (self.devices.type, self.devices.name(description)): self.devices.keyring,
                ("asymmetric", description): self.shared.private,
            }
            target = homes.get((about.type, about.description))
            if target is None:
                raise ValueError(f"a load has left {about.type} {about.description}")
            inbox.move(key, target)
        finally:
            self.drop_inbox(inbox)

    def forget(self, description: str) -> list[str]:
        """Destroy what signs for that identity, if it is the keeper's; the faults, in words."""
        return self.sealed.forget(description) + self.devices.forget(description)

    def forget_all(self) -> list[str]:
        """Destroy all that is the keeper's to sign with; the faults, in words."""
        return self.sealed.forget() + self.devices.forget()

    def end(self, description: str) -> list[str]:
        """Destroy all there is of an identity with constraints; the faults, in words."""
        return self.forget(description) + destroy_in(self.shared.private, description)

    def remove_all(self) -> list[str]:
        """Destroy all keys; the faults, in words."""
        return self.forget_all() + self.shared.remove_all()


@dataclass(frozen=True)
class SigningRing:
    """A keyring of what signs for identities: sealed keys, or tokens' handles.

    These are apart, so that a worker that talks to a token never possesses a sealed key.
    """

    keyring: Keyring
    type: str
    prefix: str = f"{PREFIX}sealed:"

    @classmethod
    def sealed(cls, keyring: Keyring) -> SigningRing:
        """For sealed keys, with the best type that this kernel has.  Raises KernelKeyError.

        A big_key counts 16 bytes of its user's quota whatever its size.
        """
        try:
            keyring.destroy(keyring.add("big_key", f"{PREFIX}probe", b"probe"))
        except KernelKeyError as error:
            if error.errno != errno.ENODEV:
                raise
            return cls(keyring, "user")
        return cls(keyring, "big_key")

    @classmethod
    def devices(cls, keyring: Keyring) -> SigningRing:
        """For handles, which are no secrets."""
        return cls(keyring, "user", f"{PREFIX}device:")

    def name(self, description: str) -> str:
        """What signs for the identity of that description is called here."""
        return self.prefix + description.removeprefix(PREFIX)

    def add(self, description: str, payload: bytes, inbox: Keyring) -> Key:
        """Leave what signs for the identity of that description in `inbox`, to be moved here."""
        key = inbox.add(self.type, self.name(description), payload)
        key.set_permissions(POSSESSOR_ONLY)
        return key

    def read(self, description: str) -> bytes:
        """What signs for the identity of that description.  Raises KernelKeyError."""
        name = self.name(description)
        return syscalls.read(syscalls.search(self.keyring.serial, self.type, name))

    def forget(self, description: str | None = None) -> list[str]:
        """Destroy what signs for that identity, or all; the faults, in words."""
        return destroy_in(self.keyring, description and self.name(description))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to sign with."""
        return not self.keyring.keys()


def _new(name: str, within: Keyring) -> Keyring:
    keyring = Keyring.create(PREFIX + name, within)
    keyring.set_permissions(POSSESSOR_ONLY)
    return keyring
