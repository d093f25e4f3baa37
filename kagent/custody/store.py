"""All identities of an agent, wherever the kernel holds them.

Unconstrained keys that the kernel signs with are in an anchor keyring, from where a later agent
takes them up again; so it does with keys that no agent has loaded.  All else has its record in the
private ring: a constraint could be stepped around with keyctl where others possess the key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ..keyctl import Key, Keyring
from ..protocol.wire import ProtocolError
from .adopted import Adopted
from .anchor import Anchor, Held
from .identity import Custody, Identity
from .rings import Place, Rings


@dataclass(frozen=True)
class Store:
    """The identities in an agent's keyrings.

    What this agent has loaded is known by its record; what it has not loaded is `adopted`, and
    finding out about a key the first time takes tens of milliseconds.
    """

    rings: Rings

    @cached_property
    def adopted(self) -> Adopted:
        """The identities that were not loaded by this agent."""
        return Adopted(self.rings)

    def all(self) -> list[Identity]:
        """What can be offered now: the loaded ones in their order, then the adopted ones."""
        loaded = self.identities()
        known = {identity.blob for identity in loaded}
        adopted = {
            found.identity.blob: found.identity
            for found in self.adopted.all()
            if found.identity.blob not in known
        }
        return loaded + sorted(adopted.values(), key=lambda one: (one.order, one.comment))

    def identities(self) -> list[Identity]:
        """What this agent has loaded, in the order in which it was added."""
        found: dict[bytes, Identity] = {}
        for anchor in self._anchors():
            for identity in anchor.identities():
                # Where an identity is in both, that of the private ring counts: it is never the
                # one with fewer constraints.
                found.setdefault(identity.blob, identity)
        return sorted(found.values(), key=lambda identity: identity.order)

    @property
    def ends_with_agent(self) -> bool:
        """Whether something is held that no later agent will find: a key, or the lock."""
        fetched = any(key.alive for key, _ in self.rings.fetched.described())
        return fetched or bool(self.rings.private.keys())

    def find(self, blob: bytes) -> Held | None:
        """The loaded identity of that public key, and the key that signs for it."""
        for anchor in self._anchors():
            held = anchor.find(blob)
            if held:
                return held
        return None

    def hold(self, identity: Identity, key: Key) -> Identity:
        """Take in a key that the kernel signs with; the identity as it is held."""
        placed = self.placed(identity)
        self._home(placed).hold(placed, key)
        return placed

    def placed(self, identity: Identity) -> Identity:
        """With its place in the order: at the end, or where it is if it is held already."""
        try:
            held = self.find(identity.blob)
        except ProtocolError:
            held = None  # a damaged record, which is about to be replaced
        order = held.identity.order if held else time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        expires = int(time.time()) + identity.lifetime if identity.lifetime else 0
        return replace(identity, order=order, expires=expires)

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

    def find_adopted(self, blob: bytes) -> Held | None:
        """The adopted identity of that public key."""
        found = self.adopted.find(blob)
        return Held(found.identity, found.key) if found else None

    def remove(self, blob: bytes) -> None:
        """Destroy that identity's record and kernel key, also where it is adopted."""
        for anchor in self._anchors():
            anchor.remove(blob)
        self.adopted.remove(blob)

    def remove_all(self) -> None:
        """Destroy every identity's record and kernel key, also the adopted and fetched ones'."""
        for anchor in self._anchors():
            anchor.remove_all()
        self.rings.fetched.clear()
        self.adopted.remove()

    def withdraw(self) -> None:
        """Move all loaded keys that others could use into the private ring.

        Adopted keys stay where somebody else wants them to be.
        """
        anchor = self.rings.anchor
        if anchor:
            Anchor(anchor, exposed=True).move_all(Anchor(self.rings.private))

    def restore(self) -> None:
        """Move back what `withdraw` has moved."""
        private = Anchor(self.rings.private)
        for identity in private.identities():
            home = self._home(identity)
            if home != private:
                private.move(identity.description, home)

    def _anchors(self) -> Iterator[Anchor]:
        yield Anchor(self.rings.private)
        if anchor := self.rings.anchor:
            yield Anchor(anchor, exposed=True)

    def _home(self, identity: Identity) -> Anchor:
        rings = self.rings
        if (
            identity.constraints
            or identity.custody != Custody.KERNEL
            or rings.place is Place.PRIVATE
        ):
            return Anchor(rings.private)
        keyring = rings.anchor or Keyring.create(rings.anchor_name, rings.home)
        return Anchor(keyring, exposed=True)
