"""A keyring that holds identities: each a record, and beside it the key if the kernel signs.

The key can't be read, so what it can't tell (blob, comment, order, custody) is kept in a key of
type `user` next to it, under the same description.  The agent itself remembers nothing: what is
in the keyring is what there is, at every request anew.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from ..keyctl import AsymmetricKey, KernelKeyError, Key, Keyring
from ..protocol.wire import ProtocolError
from .identity import PREFIX, Custody, Identity, description_of
from .rings import POSSESSOR_ONLY


class Held(NamedTuple):
    """An identity, and the key that signs for it if the kernel does."""

    identity: Identity
    key: AsymmetricKey | None


@dataclass(frozen=True)
class Anchor:
    """A keyring with identities.

    Others can write into an `exposed` one.  What counts there is only what the key itself shows to
    be true: that the kernel signs with it, without constraints.  A record of anything else could
    take a constraint away from a key that is held elsewhere.
    """

    keyring: Keyring
    exposed: bool = False

    def identities(self) -> list[Identity]:
        """What can be offered now, in no particular order.

        A record whose key has expired, was revoked or unlinked is passed over, and so is a key
        without a readable record: nothing is known of what it may be used for.
        """
        found = list(self.keyring.described())
        keys = {about.description for _, about in found if about.type == "asymmetric"}
        identities = []
        for record, about in found:
            if about.type != "user" or not about.description.startswith(PREFIX):
                continue
            try:
                identity = Identity.parse(record.read())
            except (KernelKeyError, ProtocolError):
                continue
            held = identity.custody != Custody.KERNEL or about.description in keys
            if held and identity.description == about.description and self._credible(identity):
                identities.append(identity)
        return identities

    def find(self, blob: bytes) -> Held | None:
        """The identity of that public key.  Raises ProtocolError if its record is damaged."""
        description = description_of(blob)
        record = self.keyring.find("user", description)
        if record is None:
            return None
        identity = Identity.parse(record.read())
        if identity.blob != blob or not self._credible(identity):
            return None
        if identity.custody != Custody.KERNEL:
            return Held(identity, None)
        key = self.keyring.find("asymmetric", description)
        return Held(identity, AsymmetricKey(key.serial)) if key else None

    def _credible(self, identity: Identity) -> bool:
        plain = identity.custody == Custody.KERNEL and not identity.constraints
        return plain or not self.exposed

    def hold(self, identity: Identity, key: Key) -> None:
        """Take a finished key in.

        The record comes first and the key last, so that a loader that dies between the two
        leaves nothing that signs.
        """
        self.record(identity)
        before = self.keyring.find("asymmetric", identity.description)
        if identity.constraints:
            key.set_permissions(POSSESSOR_ONLY)
        if identity.lifetime:
            key.set_timeout(identity.lifetime)
        self.keyring.link(key)
        if before:
            # It is gone now, unless it is shared with another user, who has a link to it.
            with suppress(KernelKeyError):
                before.invalidate()

    def record(self, identity: Identity) -> None:
        """Take an identity's record in, with the lifetime that the key has."""
        record = self.keyring.add("user", identity.description, identity.write())
        record.set_permissions(POSSESSOR_ONLY)
        if identity.lifetime:
            record.set_timeout(identity.lifetime)

    def move(self, description: str, target: Anchor) -> None:
        """Move an identity; the key first, since without its record it is nothing."""
        for kind in ("asymmetric", "user"):
            key = self.keyring.find(kind, description)
            if key is not None:
                self.keyring.move(key, target.keyring)

    def move_all(self, target: Anchor) -> None:
        """Move every identity."""
        for _, about in list(self.keyring.described()):
            if about.description.startswith(PREFIX):
                self.move(about.description, target)

    def remove(self, blob: bytes) -> None:
        """Destroy that identity's keys."""
        for kind in ("asymmetric", "user"):
            key = self.keyring.find(kind, description_of(blob))
            if key is not None:
                self.keyring.destroy(key)

    def remove_all(self) -> None:
        """Destroy every identity's keys."""
        for key, about in self.keyring.described():
            if about.description.startswith(PREFIX):
                self.keyring.destroy(key)
