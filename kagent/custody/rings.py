"""The keyrings of an agent, and which process possesses which.

login
    The session that the agent was started in.  Whoever is in that session.
user
    The user's own keyring, which has every session of the user that pam_keyinit has made.
home
    Where the anchor keyring is: one of the two above, or the user's persistent keyring, or private.
private
    Records and kernel keys that nobody may use around the agent.  Keeper, front, load workers.
fetched
    The keys of configured identities, which are fetched again when they are gone.  Keeper, front,
    load workers.
sealed
    The keys that workers sign with.  Keeper, sign workers.
inbox
    A key on its way to be sealed, for the length of one load.  Keeper, that load worker.

What a process doesn't possess gives it EACCES for everything, whatever it knows of serials: the
keys' permissions name the possessor alone.  All of it is the keeper's, so it ends with the keeper.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum

from ..keyctl import (
    PROCESS_KEYRING,
    USER_KEYRING,
    KernelKeyError,
    Key,
    Keyring,
    Permission,
    enter_private_session,
    mask,
    persistent_keyring,
    session_keyring,
    syscalls,
)
from .identity import PREFIX

POSSESSOR_ONLY = mask(possessor=Permission.ALL)
_SEALED_PREFIX = f"{PREFIX}sealed:"


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


@dataclass(frozen=True)
class Rings:
    """What keeper, front and load workers share."""

    place: Place
    login: Keyring
    user: Keyring
    home: Keyring
    private: Keyring
    fetched: Keyring

    @property
    def anchor_name(self) -> str:
        """What the keyring with this agent's unconstrained keys is called."""
        return f"{PREFIX}{self.place}"

    @property
    def anchor(self) -> Keyring | None:
        """That keyring, if it is there."""
        if self.place is Place.PRIVATE:
            return None
        found = self.home.find("keyring", self.anchor_name)
        return Keyring(found.serial) if found else None

    @property
    def around(self) -> list[Keyring]:
        """What others possess too; without what is gone, as a session is after logout."""
        keyrings = dict.fromkeys((self.login, self.user, self.home))
        return [one for one in keyrings if one != self.private and one.alive]

    def enter(self, *more: Keyring) -> None:
        """Leave every keyring but these, for good.  Raises KernelKeyError."""
        enter_private_session(*self.around, self.private, self.fetched, *more)


@dataclass(frozen=True)
class KeeperRings:
    """What the keeper has: what it shares, its own session keyring, and the sealed ring."""

    shared: Rings
    session: Keyring
    sealed: SealedRing

    @classmethod
    def enter(cls, place: Place) -> KeeperRings:
        """Make an agent's keyrings and possess them.  Raises KernelKeyError."""
        login, user = session_keyring(), Keyring.special(USER_KEYRING)
        process = Keyring.special(PROCESS_KEYRING, create=True)
        names = ("private", "fetched", "sealed")
        private, fetched, sealed = (_new(name, process) for name in names)
        match place:
            case Place.SESSION:
                home = login
            case Place.USER:
                home = user
            case Place.PERSISTENT:
                home = persistent_keyring(process)
            case Place.PRIVATE:
                home = private
        shared = Rings(place, login, user, home, private, fetched)
        session = enter_private_session(*shared.around, private, fetched, sealed)
        process.clear()
        return cls(shared, session, SealedRing.of(sealed))

    def renew(self) -> None:
        """Put off the end of a persistent keyring, which comes three days after its last use.

        Using the keys in it doesn't count as use.  Raises KernelKeyError.
        """
        if self.shared.place is Place.PERSISTENT:
            persistent_keyring(self.session)

    def new_inbox(self, number: int) -> Keyring:
        """A keyring for what load number `number` wants to have sealed."""
        return _new(f"inbox:{number}", self.session)

    def empty_inbox(self, inbox: Keyring) -> None:
        """Take over what a load has left: a sealed key and its record, or nothing.

        Only a pair is taken.  Raises KernelKeyError, with nothing kept.
        """
        found = list(inbox.described())
        keys = [key for key, about in found if about.description.startswith(_SEALED_PREFIX)]
        records = [key for key, about in found if about.type == "user" and key not in keys]
        try:
            if len(keys) == len(records) == 1:
                # The record first: what signs must never be there without its constraints.
                inbox.move(records[0], self.shared.private)
                inbox.move(keys[0], self.sealed.keyring)
        finally:
            self.session.unlink(inbox)


@dataclass(frozen=True)
class SealedRing:
    """The keyring of the keys that workers sign with, and the type of key that is used for them."""

    keyring: Keyring
    type: str

    @classmethod
    def of(cls, keyring: Keyring) -> SealedRing:
        """With the best type that this kernel has.  Raises KernelKeyError.

        A big_key counts 16 bytes of its user's quota whatever its size.
        """
        try:
            keyring.destroy(keyring.add("big_key", f"{PREFIX}probe", b"probe"))
        except KernelKeyError as error:
            if error.errno != errno.ENODEV:
                raise
            return cls(keyring, "user")
        return cls(keyring, "big_key")

    def add(self, description: str, payload: bytes, inbox: Keyring) -> Key:
        """Leave what signs for the identity of that description in `inbox`, to be sealed."""
        key = inbox.add(self.type, _sealed(description), payload)
        key.set_permissions(POSSESSOR_ONLY)
        return key

    def read(self, description: str) -> bytes:
        """What signs for the identity of that description.  Raises KernelKeyError."""
        return syscalls.read(syscalls.search(self.keyring.serial, self.type, _sealed(description)))

    def forget(self, description: str | None = None) -> None:
        """Destroy what signs for that identity; for all of them if None."""
        for key, about in self.keyring.described():
            if description is None or about.description == _sealed(description):
                self.keyring.destroy(key)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to sign with."""
        return not self.keyring.keys()


def _sealed(description: str) -> str:
    return _SEALED_PREFIX + description.removeprefix(PREFIX)


def _new(name: str, within: Keyring) -> Keyring:
    keyring = Keyring.create(PREFIX + name, within)
    keyring.set_permissions(POSSESSOR_ONLY)
    return keyring
