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

from dataclasses import dataclass

from ..keyctl import (
    PROCESS_KEYRING,
    Keyring,
    Permission,
    enter_private_session,
    mask,
    session_keyring,
)
from .identity import PREFIX

POSSESSOR_ONLY = mask(possessor=Permission.ALL)
SEALED_PREFIX = f"{PREFIX}sealed:"


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
    sealed: Keyring

    @classmethod
    def enter(cls) -> KeeperRings:
        """Make an agent's keyrings and possess them.  Raises KernelKeyError."""
        login = session_keyring()
        process = Keyring.special(PROCESS_KEYRING, create=True)
        private, sealed = (_new(name, process) for name in ("private", "sealed"))
        session = enter_private_session(login, private, sealed)
        for keyring in (private, sealed):
            process.unlink(keyring)
        return cls(Rings(login, private), session, sealed)

    def new_inbox(self, number: int) -> Keyring:
        """A keyring for what load number `number` wants to have sealed."""
        return _new(f"inbox:{number}", self.session)

    def empty_inbox(self, inbox: Keyring) -> None:
        """Take over what a load has left: a sealed key and its record, or nothing.

        Only a pair is taken.  Raises KernelKeyError, with nothing kept.
        """
        found = list(inbox.described())
        keys = [key for key, about in found if about.description.startswith(SEALED_PREFIX)]
        records = [key for key, about in found if about.type == "user" and key not in keys]
        try:
            if len(keys) == len(records) == 1:
                inbox.move(keys[0], self.sealed)
                inbox.move(records[0], self.shared.private)
        finally:
            self.session.unlink(inbox)

    def forget(self, description: str | None = None) -> None:
        """Destroy the sealed key of that identity; all of them if None."""
        for key, about in self.sealed.described():
            if description is None or about.description == sealed_description(description):
                self.sealed.destroy(key)


def sealed_description(description: str) -> str:
    """The description of the sealed key of the identity with that description."""
    return SEALED_PREFIX + description.removeprefix(PREFIX)


def _new(name: str, within: Keyring) -> Keyring:
    keyring = Keyring.create(PREFIX + name, within)
    keyring.set_permissions(POSSESSOR_ONLY)
    return keyring
