"""A keyring that others can write to, with keys that the kernel signs with, each beside its record.

The key can't be read, so what it can't tell (blob, comment, order) is kept in a key next to it,
under the same description.  The agent itself remembers nothing: what is in the keyring is what
there is, at every request anew.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from ..keyctl import AsymmetricKey, Description, KernelKeyError, Key, Keyring, NothingFoundOut
from ..protocol.wire import ProtocolError
from .identity import PREFIX, Custody, Identity, description_of
from .rings import POSSESSOR_ONLY

# A big_key counts 16 bytes of its user's quota whatever its size; not every kernel has it.
RECORD_TYPES = ("big_key", "user")


class Held(NamedTuple):
    """An identity, and the key that signs for it if the kernel does."""

    identity: Identity
    key: AsymmetricKey | None


class Anchor(NamedTuple):
    """A keyring with identities, that others can write to, or could when its content was there.

    What counts is only what the key itself shows to be true: that the kernel signs with it, without
    constraints.  A record of anything else could take a constraint away from a key that is held
    elsewhere.
    """

    keyring: Keyring

    def identities(self) -> list[Identity]:
        """What can be offered now, in no particular order.

        A record whose key was revoked or unlinked is passed over, and so is a key without a
        readable record: nothing is known of what it may be used for.
        """
        content = list(self.content())
        keys = {about.description for _, about in content if about.type == "asymmetric"}
        identities = []
        for record, about in content:
            if about.type not in RECORD_TYPES or about.description not in keys:
                continue
            try:
                identity = Identity.parse(record.read())
            except NothingFoundOut:
                raise
            except (KernelKeyError, ProtocolError):
                continue
            if identity.description == about.description and _counts(identity):
                identities.append(identity)
        return identities

    def find(self, blob: bytes) -> Held | None:
        """The identity of that public key.  Raises ProtocolError if its record is damaged."""
        description = description_of(blob)
        record = next(filter(None, (self._key(kind, description) for kind in RECORD_TYPES)), None)
        if record is None:
            return None
        identity = Identity.parse(record.read())
        if identity.blob != blob or not _counts(identity):
            return None
        key = self._key("asymmetric", description)
        return Held(identity, AsymmetricKey(key.serial)) if key else None

    def _key(self, kind: str, description: str) -> Key | None:
        key = self.keyring.find(kind, description)
        # Others' keys can be linked into what others write to.
        return key if key and key.describe().uid == os.getuid() else None

    def content(self) -> Iterator[tuple[Key, Description]]:
        """The keys and records of identities, of our own."""
        for key, about in self.keyring.described():
            named = about.type in ("asymmetric", *RECORD_TYPES)
            if named and about.description.startswith(PREFIX) and about.uid == os.getuid():
                yield key, about

    def record(self, identity: Identity) -> Key:
        """Write an identity's record."""
        best, other = RECORD_TYPES
        try:
            record = self.keyring.add(best, identity.description, identity.write())
        except KernelKeyError as error:
            if error.errno != errno.ENODEV:
                raise
            record = self.keyring.add(other, identity.description, identity.write())
        record.set_permissions(POSSESSOR_ONLY)
        return record


def _counts(identity: Identity) -> bool:
    return identity.custody == Custody.KERNEL and not identity.constraints
