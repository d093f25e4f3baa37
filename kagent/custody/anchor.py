"""The anchor keyring: the identities that the kernel holds, each a key and a record beside it.

The key can't be read, so what it can't tell (blob, comment, order, custody) is kept in a key of
type `user` next to it, under the same description.  The agent itself remembers nothing: what is
in the keyring is what there is, at every request anew.
"""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from dataclasses import dataclass, replace
from functools import lru_cache

from ..keyctl import (
    SESSION_KEYRING,
    AsymmetricKey,
    KernelKeyError,
    Key,
    KeyNotFound,
    Keyring,
    session_keyring,
)
from ..protocol.wire import BYTE, STRING, TEXT, UINT64, ProtocolError, Reader, Record

_PREFIX = "kagent:"
_VERSION = 1


@lru_cache
def description_of(blob: bytes) -> str:
    """The description of an identity's keys: for a plain key, its fingerprint as ssh shows it.

    A type and description are unique in a keyring, so adding a key again replaces it.
    """
    digest = hashlib.sha256(blob).digest()
    return f"{_PREFIX}SHA256:{b64encode(digest).rstrip(b'=').decode()}"


@dataclass(frozen=True)
class Identity(Record):
    """What is known of a key besides the key; `order` grows from one addition to the next."""

    blob: bytes
    comment: str
    custody: str
    order: int = 0
    version: int = _VERSION
    layout = (STRING, TEXT, TEXT, UINT64, BYTE)

    @classmethod
    @lru_cache
    def parse(cls, payload: bytes) -> Identity:
        """Read a record.  Raises ProtocolError for a damaged one, or one of another version."""
        if payload[-1:] != bytes((_VERSION,)):
            raise ProtocolError("record of another version")
        reader = Reader(payload)
        identity = cls.read(reader)
        reader.expect_end()
        return identity


@dataclass(frozen=True)
class Anchor:
    """The anchor keyring of a session."""

    keyring: Keyring

    NAME = f"{_PREFIX}session"

    @classmethod
    def find(cls) -> Anchor | None:
        """The session's anchor, if it was ever made."""
        keyring = Keyring(SESSION_KEYRING).find("keyring", cls.NAME)
        return cls(Keyring(keyring.serial)) if keyring else None

    @classmethod
    def find_or_create(cls) -> Anchor:
        """The session's anchor."""
        return cls.find() or cls(Keyring.create(cls.NAME, session_keyring()))

    def identities(self) -> list[Identity]:
        """What can be offered now, in the order in which it was added.

        A record whose key has expired, was revoked or unlinked is passed over, and so is a key
        without a readable record: nothing is known of what it may be used for.
        """
        found = list(self.keyring.described())
        keys = {about.description for _, about in found if about.type == "asymmetric"}
        identities = []
        for record, about in found:
            if about.type != "user" or about.description not in keys:
                continue
            try:
                identity = Identity.parse(record.read())
            except (KernelKeyError, ProtocolError):
                continue
            if description_of(identity.blob) == about.description:
                identities.append(identity)
        return sorted(identities, key=lambda identity: identity.order)

    def identity(self, blob: bytes) -> tuple[Identity, AsymmetricKey] | None:
        """The identity of that public key, and the key that signs for it."""
        description = description_of(blob)
        record = self.keyring.find("user", description)
        key = self.keyring.find("asymmetric", description)
        if record is None or key is None:
            return None
        identity = Identity.parse(record.read())
        return (identity, AsymmetricKey(key.serial)) if identity.blob == blob else None

    def hold(self, identity: Identity, key: Key) -> None:
        """Take a finished key in; an identity held already keeps its place in the order.

        The record comes first and the key last, so that a loader that dies between the two
        leaves nothing that signs.
        """
        held = self.identity(identity.blob)
        order = held[0].order if held else time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        record = replace(identity, order=order).write()
        self.keyring.add("user", description_of(identity.blob), record)
        self.keyring.link(key)

    def remove(self, blob: bytes) -> bool:
        """Destroy that identity's keys; False if there were none."""
        description = description_of(blob)
        found = [self.keyring.find(kind, description) for kind in ("asymmetric", "user")]
        for key in filter(None, found):
            self._destroy(key)
        return found[0] is not None

    def remove_all(self) -> None:
        """Destroy every identity's keys."""
        for key, about in self.keyring.described():
            if about.description.startswith(_PREFIX):
                self._destroy(key)

    def _destroy(self, key: Key) -> None:
        # Invalidating reaches the key through other links too, but the keyring lists it until
        # the kernel's collector has passed; it needs possession, so it comes first.
        try:
            key.invalidate()
            self.keyring.unlink(key)
        except KeyNotFound:
            pass
