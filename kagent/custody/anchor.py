"""A keyring that holds identities: each a record, and beside it the key if the kernel signs.

The key can't be read, so what it can't tell (blob, comment, order, custody) is kept in a key of
type `user` next to it, under the same description.  The agent itself remembers nothing: what is
in the keyring is what there is, at every request anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..keyctl import AsymmetricKey, Description, KernelKeyError, Key, Keyring
from ..protocol.wire import ProtocolError
from . import clock
from .identity import PREFIX, Custody, Identity, description_of
from .rings import POSSESSOR_ONLY

_KINDS = ("asymmetric", "user")


class Held(NamedTuple):
    """An identity, and the key that signs for it if the kernel does."""

    identity: Identity
    key: AsymmetricKey | None


@dataclass(frozen=True)
class Anchor:
    """A keyring with identities.

    Others can write into an `exposed` one, or could when its content was there.  What counts is
    only what the key itself shows to be true: that the kernel signs with it, without constraints.
    A record of anything else could take a constraint away from a key that is held elsewhere.
    """

    keyring: Keyring
    exposed: bool = False

    def identities(self) -> list[Identity]:
        """What can be offered now, in no particular order.

        A record whose time is over, or whose key was revoked or unlinked, is passed over, and so is
        a key without a readable record: nothing is known of what it may be used for.
        """
        content = list(self.content())
        keys = {about.description for _, about in content if about.type == "asymmetric"}
        identities = []
        for record, about in content:
            if about.type != "user":
                continue
            try:
                identity = Identity.parse(record.read())
            except (KernelKeyError, ProtocolError):
                continue
            held = identity.custody != Custody.KERNEL or about.description in keys
            if held and identity.description == about.description and self._counts(identity):
                identities.append(identity)
        return identities

    def find(self, blob: bytes) -> Held | None:
        """The identity of that public key.  Raises ProtocolError if its record is damaged."""
        description = description_of(blob)
        record = self._key("user", description)
        if record is None:
            return None
        identity = Identity.parse(record.read())
        if identity.blob != blob or not self._counts(identity):
            return None
        if identity.custody != Custody.KERNEL:
            return Held(identity, None)
        key = self._key("asymmetric", description)
        return Held(identity, AsymmetricKey(key.serial)) if key else None

    def _key(self, kind: str, description: str) -> Key | None:
        if not self.exposed:
            return self.keyring.search(kind, description)
        key = self.keyring.find(kind, description)
        # Others' keys can be linked into what others write to.
        return key if key and key.describe().uid == os.getuid() else None

    def _counts(self, identity: Identity) -> bool:
        if self.exposed:
            return identity.custody == Custody.KERNEL and not identity.constraints
        return not identity.ended(clock.now())

    def content(self) -> Iterator[tuple[Key, Description]]:
        """The keys and records of identities, of our own."""
        for key, about in self.keyring.described():
            named = about.type in _KINDS and about.description.startswith(PREFIX)
            if named and about.uid == os.getuid():
                yield key, about

    def record(self, identity: Identity) -> Key:
        """Write an identity's record."""
        record = self.keyring.add("user", identity.description, identity.write())
        record.set_permissions(POSSESSOR_ONLY)
        return record
