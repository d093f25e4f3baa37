"""The keyrings of an agent, and which process possesses which.

login
    The session that the agent was started in, with the anchor keyring.  Whoever is in that session.
private
    Records and kernel keys that nobody may use around the agent.  Keeper, front, load workers.
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

from ..keyctl import (
    PROCESS_KEYRING,
    KernelKeyError,
    Key,
    Keyring,
    Permission,
    enter_private_session,
    mask,
    session_keyring,
    syscalls,
)
from .identity import PREFIX

POSSESSOR_ONLY = mask(possessor=Permission.ALL)
_SEALED_PREFIX = f"{PREFIX}sealed:"


@dataclass(frozen=True)
class Rings:
    """What keeper, front and load workers share; as serials it fits on a command line."""

    login: Keyring
    private: Keyring

    def enter(self, *more: Keyring) -> None:
        """Leave every keyring but these, for good.  Raises KernelKeyError."""
        enter_private_session(self.login, self.private, *more)


@dataclass(frozen=True)
class KeeperRings:
    """What the keeper has: what it shares, its own session keyring, and the sealed ring."""

    shared: Rings
    session: Keyring
    sealed: SealedRing

    @classmethod
    def enter(cls) -> KeeperRings:
        """Make an agent's keyrings and possess them.  Raises KernelKeyError."""
        login = session_keyring()
        process = Keyring.special(PROCESS_KEYRING, create=True)
        private, sealed = (_new(name, process) for name in ("private", "sealed"))
        session = enter_private_session(login, private, sealed)
        for keyring in (private, sealed):
            process.unlink(keyring)
        return cls(Rings(login, private), session, SealedRing.of(sealed))

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
                inbox.move(keys[0], self.sealed.keyring)
                inbox.move(records[0], self.shared.private)
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
