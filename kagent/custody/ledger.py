"""The identities that end with the agent, which nobody else gets at.

Each has a record on a shelf that the keeper writes; and where the kernel signs under a constraint,
its key is in the private ring.
"""

from __future__ import annotations

from typing import NamedTuple

from ..keyctl import AsymmetricKey, Keyring
from ..protocol.wire import ProtocolError
from . import clock
from .anchor import Held
from .identity import Custody, Identity, description_of
from .shelf import Shelf


class Ledger(NamedTuple):
    """What is on the shelf and in the ring is what there is, at every request anew."""

    records: Shelf
    private: Keyring

    def identities(self) -> list[Identity]:
        """What can be offered now, in no particular order."""
        identities = []
        for record in self.records.entries().values():
            try:
                identity = Identity.parse(record)
            except ProtocolError:
                continue
            if self._held(identity):
                identities.append(identity)
        return identities

    def find(self, blob: bytes) -> Held | None:
        """The identity of that public key.  Raises ProtocolError if its record is damaged."""
        record = self.records.entries().get(description_of(blob))
        return self._held(Identity.parse(record)) if record else None

    def _held(self, identity: Identity) -> Held | None:
        if identity.ended(clock.now()):
            return None
        if identity.custody != Custody.KERNEL:
            return Held(identity, None)
        # Nobody else can link anything there, so what is found is there itself.
        key = self.private.search("asymmetric", identity.description)
        return Held(identity, AsymmetricKey(key.serial)) if key else None
