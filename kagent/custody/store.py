"""All identities of an agent, wherever the kernel holds them.

Unconstrained keys that the kernel signs with are in the anchor keyring of the login's session, from
where a later agent takes them up again.  All else has its record in the private ring: a constraint
could be stepped around with keyctl where others of the session possess the key.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ..keyctl import Key, Keyring
from .anchor import Anchor, Held
from .identity import PREFIX, Custody, Identity
from .rings import POSSESSOR_ONLY, Rings

ANCHOR_NAME = f"{PREFIX}session"


@dataclass(frozen=True)
class Store:
    """The identities in an agent's keyrings."""

    rings: Rings

    def identities(self) -> list[Identity]:
        """What can be offered now, in the order in which it was added."""
        found: dict[bytes, Identity] = {}
        for anchor in self._anchors():
            for identity in anchor.identities():
                # Where an identity is in both, that of the private ring counts: it is never the
                # one with fewer constraints.
                found.setdefault(identity.blob, identity)
        return sorted(found.values(), key=lambda identity: identity.order)

    def find(self, blob: bytes) -> Held | None:
        """The identity of that public key, and the key that signs for it."""
        for anchor in self._anchors():
            held = anchor.find(blob)
            if held:
                return held
        return None

    def hold(self, identity: Identity, key: Key) -> Identity:
        """Take in a key that the kernel signs with; the identity as it is held."""
        placed = self.placed(identity)
        if placed.constraints:
            key.set_permissions(POSSESSOR_ONLY)
        self._home(placed).hold(placed, key)
        return placed

    def placed(self, identity: Identity) -> Identity:
        """With its place in the order: at the end, or where it is if it is held already."""
        held = self.find(identity.blob)
        order = held.identity.order if held else time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return replace(identity, order=order)

    def settle(self, identity: Identity) -> bool:
        """After a load: whether it is held as told; what was held of it otherwise goes."""
        home = self._home(identity)
        held = home.find(identity.blob)
        if held is None or held.identity != identity:
            return False
        for anchor in self._anchors():
            if anchor != home:
                anchor.remove(identity.blob)
        return True

    def remove(self, blob: bytes) -> Identity | None:
        """Destroy an identity's record and kernel key; what it was, None if there was none."""
        held = self.find(blob)
        if held is None:
            return None
        for anchor in self._anchors():
            anchor.remove(blob)
        return held.identity

    def remove_all(self) -> None:
        """Destroy every identity's record and kernel key."""
        for anchor in self._anchors():
            anchor.remove_all()

    def _anchors(self) -> list[Anchor]:
        session = self._session_anchor()
        private = Anchor(self.rings.private)
        return [private, session] if session else [private]

    def _session_anchor(self) -> Anchor | None:
        keyring = self.rings.login.find("keyring", ANCHOR_NAME)
        return Anchor(Keyring(keyring.serial)) if keyring else None

    def _home(self, identity: Identity) -> Anchor:
        if identity.constraints or identity.custody != Custody.KERNEL:
            return Anchor(self.rings.private)
        return self._session_anchor() or Anchor(Keyring.create(ANCHOR_NAME, self.rings.login))
