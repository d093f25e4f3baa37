"""All identities of an agent, wherever they are held.

Unconstrained keys that the kernel signs with are in an anchor keyring, from where a later agent
takes them up again; so it does with keys that no agent has loaded.  All else is in the ledger: a
constraint could be stepped around with keyctl where others possess the key.

Whoever is in the session can take a key out of the anchor keyring.  So this agent has a hold of its
own on each, in the ring `lent`: what is there it removes, or puts back when it is unlocked.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress

from ..keyctl import (
    KernelKeyError,
    Key,
    KeyNotFound,
    Keyring,
    NothingFoundOut,
    PermissionDenied,
    QuotaExceeded,
)
from ..protocol.wire import ProtocolError
from . import clock
from .adopted import Adopted
from .anchor import RECORD_TYPES, Anchor, Held
from .identity import Custody, Identity, description_of
from .ledger import Ledger
from .rings import Place, Rings, destroy_in_all, keys_in


class StillThere(Exception):
    """Something that others could use around a constraint can't be destroyed; says what."""


class Store:
    """The identities in an agent's keyrings.

    What this agent has loaded is known by its record; what it has not loaded is `adopted`, and
    finding out about a key the first time takes tens of milliseconds.
    """

    def __init__(self, rings: Rings) -> None:
        self.rings = rings
        self.adopted = Adopted(lambda: rings.around, lambda: rings.anchor)
        self._ledger = Ledger(rings.records, rings.private)
        self._lent = Anchor(rings.lent)

    @property
    def _anchor(self) -> Anchor | None:
        anchor = self.rings.anchor
        return Anchor(anchor) if anchor else None

    def all(self) -> list[Identity]:
        """What can be offered now: the loaded ones in their order, then the adopted ones."""
        self.take_up()
        loaded = self.identities()
        known = {identity.blob for identity in loaded}
        adopted = {
            found.identity.blob: found.identity
            for found in self.adopted.all()
            if found.identity.blob not in known
        }
        return loaded + sorted(adopted.values(), key=lambda one: (one.order, one.comment))

    def identities(self) -> list[Identity]:
        """What an agent has loaded, in the order in which it was added."""
        # Where an identity is in both, that of the ledger counts: it is never the one with fewer
        # constraints.
        anchor = self._anchor
        found = [*(anchor.identities() if anchor else ()), *self._ledger.identities()]
        identities = {identity.blob: identity for identity in found}
        return sorted(identities.values(), key=lambda identity: identity.order)

    @property
    def ends_with_agent(self) -> bool:
        """Whether something is held that no later agent will find: a key, or the lock."""
        fetched = any(key.alive for key, _ in self.rings.fetched.described())
        return fetched or bool(self.rings.records or self.rings.private.keys())

    def find(self, blob: bytes) -> Held | None:
        """The loaded identity of that public key, and the key that signs for it.

        Raises ProtocolError if its record is damaged, and KernelKeyError.
        """
        if held := self._ledger.find(blob):
            return held
        anchor = self._anchor
        return anchor.find(blob) if anchor else None

    def has_some_of(self, blob: bytes) -> bool:
        """Whether there is anything of that identity, if only a record that can't be read."""
        description = description_of(blob)
        return description in self.rings.records.entries() or any(
            about.description == description
            for keyring in self._everywhere
            for _, about in keyring.described()
        )

    def find_adopted(self, blob: bytes) -> Held | None:
        """The adopted identity of that public key."""
        found = self.adopted.find(blob)
        return Held(found.identity, found.key) if found else None

    def in_its_place(self, loaded: Identity) -> Identity:
        """What a load brings, in the place in the list of what it replaces."""
        held = self.find_readable(loaded.blob)
        return loaded.replace(order=held.identity.order if held else clock.now())

    def settle(self, identity: Identity, *, locked: bool) -> None:
        """Hold the key where it belongs; it is in the private ring by now if the kernel signs.

        What was held of it otherwise ends, wherever it is linked: else it could be used around the
        constraints.  While the agent is locked the key isn't shown to others.  Raises
        KernelKeyError and StillThere.
        """
        if not self.is_private(identity):
            self._settle_in_lent(identity, shown=not locked)
            return
        self._destroy_in(identity.description, *self._in_reach)
        if self._ledger.find(identity.blob) is None:
            raise KeyNotFound(errno.ENOKEY, "the key is gone already")

    def _settle_in_lent(self, identity: Identity, *, shown: bool) -> None:
        rings, description = self.rings, identity.description
        key = rings.private.find("asymmetric", description)
        if key is None:
            raise KeyNotFound(errno.ENOKEY, "the key is gone already")
        before = [
            one
            for one, about in keys_in(rings.lent, description)
            if about is None or about.type == "asymmetric"
        ]
        where = rings.make_anchor() if shown else rings.withdrawn
        self._record_in_lent(identity)
        try:
            rings.lent.link(key)
            self._show(description, where)
        except KernelKeyError:
            # Nobody has seen the key, and it isn't destroyed: it may be what is gone back to.
            with suppress(KernelKeyError):
                rings.lent.unlink(key)
                for one in before:
                    rings.lent.link(one)
            raise
        # Not sooner: a signature that is asked for meanwhile must find one of the two.
        for one in before:
            rings.lent.destroy(one)
        rings.private.unlink(key)

    def leave_nothing_beside(self, identity: Identity) -> None:
        """Destroy what a load that failed has left where others reach it of a private identity."""
        destroy_in_all(self._in_reach, identity.description)

    def leave_nothing_of(self, identity: Identity) -> None:
        """Destroy what a load that failed has left of an identity that wasn't held."""
        destroy_in_all(self._everywhere, identity.description)

    def _record_in_lent(self, identity: Identity) -> None:
        try:
            self._lent.record(identity)
        except PermissionDenied:
            # Somebody has put one of that name into the anchor keyring that we may not change.
            self._destroy_in(identity.description, self.rings.lent)
            self._lent.record(identity)

    def find_readable(self, blob: bytes) -> Held | None:
        """As `find`; None for an identity whose record is damaged.  Raises NothingFoundOut."""
        try:
            return self.find(blob)
        except NothingFoundOut:
            raise
        except (KernelKeyError, ProtocolError):
            return None

    def is_private(self, identity: Identity) -> bool:
        """Whether its record is the keeper's to hold, and the key nobody's but the agent's."""
        plain = identity.custody == Custody.KERNEL and not identity.constraints
        return not plain or self.rings.place is Place.PRIVATE

    def _show(self, description: str, where: Keyring) -> None:
        """Let others have what we hold of that identity, at once or when we are unlocked."""
        for kind in (*RECORD_TYPES, "asymmetric"):
            if key := self.rings.lent.find(kind, description):
                where.link(key)

    def _destroy_in(self, description: str, *keyrings: Keyring) -> None:
        if faults := destroy_in_all(keyrings, description):
            raise StillThere("; ".join(faults))

    def remove(self, blob: bytes) -> list[str]:
        """Destroy that identity's kernel key, also where it is adopted; the faults, in words."""
        self.take_up()
        faults = destroy_in_all(self._everywhere, description_of(blob))
        return faults + self.adopted.remove(blob)

    def remove_all(self) -> list[str]:
        """Destroy every identity's kernel key, also the adopted and fetched ones'.

        What could not be removed, in words.
        """
        faults = []
        try:
            self.take_up()
        except KernelKeyError as error:
            faults.append(f"it can't be found out what another agent has loaded: {error}")
        return faults + self.rings.remove_all() + self.adopted.remove()

    def take_up(self) -> None:
        """Get a hold of our own on what is in the anchor keyring: an earlier agent's, another's."""
        anchor, lent = self._anchor, self.rings.lent
        held = set(lent.keys())
        try:
            content = list(anchor.content()) if anchor else []
        except NothingFoundOut:
            raise
        except KernelKeyError:
            return  # it is gone meanwhile, or has been made unreadable
        new = [one for one in content if one[0].serial not in held]
        if not new:
            return
        names = set(self._names_in_lent(held))
        for key, about in new:
            # Never in the place of what is held: one of the two is forged, and it isn't ours.
            if (about.type, about.description) not in names:
                with suppress(KernelKeyError):  # gone meanwhile
                    lent.link(key)

    def _names_in_lent(self, serials: set[int]) -> Iterator[tuple[str, str]]:
        for serial in serials:
            key = Key(serial)
            try:
                about = key.describe()
                yield about.type, about.description
            except NothingFoundOut:
                raise
            except KernelKeyError:
                # Ended, or somebody has made it unknowable, to have something else in its place.
                with suppress(KernelKeyError):
                    self.rings.lent.destroy(key)

    def withdraw(self) -> list[str]:
        """Take all loaded keys out of others' reach; what could not be taken, in words.

        Adopted keys stay where somebody else wants them to be.  What can't be kept to be put back,
        where somebody has used up the quota, say, is taken all the same.  Raises NothingFoundOut.
        """
        self.take_up()
        rings, anchor = self.rings, self._anchor
        faults: list[str] = []
        if anchor is None:
            return faults
        ours = set(rings.lent.keys())
        try:
            ours.update(key.serial for key, _ in anchor.content())
        except NothingFoundOut:
            raise
        except KernelKeyError:
            pass  # it is gone meanwhile
        for key in [key for key, _ in keys_in(anchor.keyring) if key.serial in ours]:
            try:
                rings.withdrawn.link(key)
            except NothingFoundOut:
                raise
            except KernelKeyError as error:
                faults.append(f"key {key.serial} will not be put back: {error}")
            try:
                anchor.keyring.unlink(key)
            except NothingFoundOut:
                raise
            except KernelKeyError as error:
                faults.append(f"key {key.serial} can't be withdrawn: {error}")
        return faults

    def restore(self) -> list[str]:
        """Put back what `withdraw` has taken, and nothing else; what could not be, in words.

        But where there is no room for it, or no memory, it stays where it was taken to, for another
        time.  Raises NothingFoundOut and QuotaExceeded.
        """
        rings, faults = self.rings, []
        for serial in rings.withdrawn.keys():  # noqa: SIM118, it is no dictionary
            try:
                rings.make_anchor().link(Key(serial))
            except (NothingFoundOut, QuotaExceeded):
                raise
            except KernelKeyError as error:
                faults.append(f"key {serial} can't be put back: {error}")
        rings.withdrawn.clear()
        return faults

    def tidy(self) -> list[str]:
        """Finish the loads at which a front was killed, or undo them; what could not be, in words.

        Of what is in the ledger all else ends, as `settle` would have seen to.
        """
        self.take_up()
        faults, private = [], self.rings.private
        for identity in self._ledger.identities():
            faults += destroy_in_all(self._in_reach, identity.description)
            if identity.constraints:
                faults += self.adopted.remove(identity.blob)
        records = self.rings.records.entries()
        for key, about in keys_in(private):
            # No record says what it may be used for.
            if about and about.type == "asymmetric" and about.description not in records:
                with suppress(KernelKeyError):
                    private.destroy(key)
        return faults

    @property
    def _everywhere(self) -> list[Keyring]:
        """The keyrings that have something of what an agent has loaded."""
        return [self.rings.private, *self._in_reach]

    @property
    def _in_reach(self) -> list[Keyring]:
        """Those of them with what others can reach, or could."""
        return [one for one in (self.rings.lent, self.rings.anchor) if one]
