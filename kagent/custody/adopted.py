"""Keys that this agent did not load: put there by hand, by PAM, by a script, or another user's.

Nothing is known of such a key but what the kernel tells, so its public half is recovered from it.
It is looked for anew at each request, in the session's keyrings, the user's, and all below them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from threading import Lock
from typing import NamedTuple, TypeAlias

from .. import log
from ..keyctl import (
    AsymmetricKey,
    Description,
    KernelKeyError,
    Key,
    Keyring,
    NothingFoundOut,
    NotRecovered,
    PkeyOp,
    RsaPublicKey,
    recover,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import MPINT, TEXT, ProtocolError
from ..text import printable
from .anchor import RECORD_TYPES
from .identity import PREFIX, Custody, Identity
from .sharing import Giver

_Content: TypeAlias = list[tuple[Key, Description]]

_ROOT = 0
# No process but this knows it, and it is less than the modulus of any key that ssh takes.
_CHALLENGE = os.urandom(100)
_MOST_WASTED = 0.5  # seconds of a processor, in one look at all
_TRIES = 3  # before memory is lacking for that key alone


class Found(NamedTuple):
    """An identity that was found; `giver` is set for another user's key."""

    identity: Identity
    key: AsymmetricKey
    uid: int
    keyring: Keyring
    record: Key | None
    giver: Giver | None


class Adopted:
    """Finds them; for any thread.  Takes tens of milliseconds for a key that is new."""

    def __init__(
        self, around: Callable[[], list[Keyring]], anchor: Callable[[], Keyring | None]
    ) -> None:
        """`around` gives the keyrings to begin at; what is in `anchor` is the agent's own."""
        self._around = around
        self._anchor = anchor
        self._turn = Lock()
        # By serial, with what the key makes of the challenge: the serial may become another key's.
        self._known: dict[int, tuple[bytes, RsaPublicKey]] = {}
        self._useless: set[int] = set()
        self._seen: set[int] = set()
        self._wasted = 0.0  # seconds
        self._refused: set[int] = set()

    def all(self, *, thorough: bool = False) -> list[Found]:
        """What can be offered now; all that is there, however long it takes, if `thorough`."""
        with self._turn:
            self._seen, self._wasted = set(), -math.inf if thorough else 0.0
            # First what is there: a key takes the kernel long enough that somebody could put the
            # next there for ever.
            everything = [found for place in list(self._places()) for found in self._in(*place)]
            self._known = {one: self._known[one] for one in self._known.keys() & self._seen}
            self._useless &= self._seen
            return everything

    def within(self, keyring: Keyring) -> list[Found]:
        """What that keyring has of ours."""
        with self._turn:
            self._wasted = 0.0
            return list(self._in(keyring, None, _content(keyring)))

    def find(self, blob: bytes) -> Found | None:
        """The one with that public key."""
        return next((found for found in self.all() if found.identity.blob == blob), None)

    def remove(self, blob: bytes | None = None) -> list[str]:
        """Destroy those with that public key, or all; what could not be removed, in words.

        What belongs to another user, or to root, is let go of instead.
        """
        faults = []
        for found in self.all(thorough=True):
            if blob not in (None, found.identity.blob):
                continue
            for key in filter(None, (found.key, found.record)):
                try:
                    if found.uid == os.getuid():
                        found.keyring.destroy(key)
                    else:
                        found.keyring.unlink(key)
                except KernelKeyError as error:
                    faults.append(f"key {key.serial} can't be removed: {error}")
        return faults

    def _places(self) -> Iterator[tuple[Keyring, Giver | None, _Content]]:
        """Each keyring once, with what it has.

        Not what others have linked in: a keyring must be ours, or root's.
        """
        waiting: list[tuple[Keyring, Giver | None]] = [
            (keyring, None) for keyring in self._around()
        ]
        seen: set[Keyring] = set()
        while waiting:
            keyring, giver = waiting.pop(0)
            if keyring in seen:
                continue
            seen.add(keyring)
            content = _content(keyring)
            yield keyring, giver, content
            if giver is None:
                waiting += _keyrings_in(content)

    def _in(self, keyring: Keyring, giver: Giver | None, content: _Content) -> Iterator[Found]:
        owners = {giver.uid} if giver else {os.getuid(), _ROOT}
        content = [(key, about) for key, about in content if about.uid in owners]
        records = {about.description: key for key, about in content if about.type in RECORD_TYPES}
        keys = [(key, about) for key, about in content if about.type == "asymmetric"]
        ours = bool(keys) and keyring == self._anchor()
        for key, about in keys:
            held, record = AsymmetricKey(key.serial), records.get(about.description)
            try:
                recorded = _recorded(about, record)
                public = None if ours else self._public(held)
                if public:
                    identity = _identity(about, recorded, public, giver)
                    yield Found(identity, held, about.uid, keyring, record, giver)
            except NothingFoundOut:
                raise
            except (KernelKeyError, ProtocolError) as error:
                self._refuse(key, about, error)

    def _public(self, key: AsymmetricKey) -> RsaPublicKey | None:
        """None for what can't sign: public keys, certificates, what has expired.

        Somebody may have put many keys there with which the kernel computes long, for nothing.  So
        what is of no use is looked at once; and when that has taken long, the other new ones are
        for another time.
        """
        self._seen.add(key.serial)
        known = self._known.get(key.serial)
        if key.serial in self._useless or (known is None and self._wasted >= _MOST_WASTED):
            return None
        begun = time.thread_time()
        try:
            made = _made_of_challenge(key)
            if made is None:
                return None
            if known is None or known[0] != made:
                known = self._known[key.serial] = made, recover(key)
        except NotRecovered:
            self._useless.add(key.serial)
            self._wasted += time.thread_time() - begun
            return None
        except NothingFoundOut:
            raise
        except KernelKeyError:
            return None
        return known[1]

    def _refuse(self, key: Key, about: Description, error: Exception) -> None:
        if key.serial not in self._refused:
            self._refused.add(key.serial)
            log.warning(f"refused: key {key.serial}, {about.description}: {error}")


def _made_of_challenge(key: AsymmetricKey) -> bytes | None:
    """What the key makes of the challenge; None where the kernel has no memory for it alone.

    None too for a public key, with which that can take a third of a second.  That there is no
    memory the kernel says at each use of a key that is too long for it (crypto/rsa.c), which
    anybody can load: such a key signs for nobody, and must not keep the others from being found.
    Raises KernelKeyError; NothingFoundOut where the key can't even be described.
    """
    for _ in range(_TRIES):
        try:
            limits = key.limits("enc=raw")
            if not limits.supported_ops & PkeyOp.DECRYPT:
                return None
            return key.encrypt_raw(_CHALLENGE, limits.max_enc_size)
        except NothingFoundOut:
            key.describe()
    return None


def _recorded(about: Description, record: Key | None) -> Identity | None:
    """What is recorded of a key that a kagent has loaded; None for any other.

    Raises ProtocolError and KernelKeyError where there is no valid record: such a key may have been
    loaded under constraints, and nobody knows any more which.
    """
    if not about.description.startswith(PREFIX):
        return None
    if record is None:
        raise ProtocolError("no record says what it may be used for")
    identity = Identity.parse(record.read())
    if identity.description != about.description or identity.custody != Custody.KERNEL:
        raise ProtocolError("its record is another key's")
    return identity


def _identity(
    about: Description, recorded: Identity | None, public: RsaPublicKey, giver: Giver | None
) -> Identity:
    plain = TEXT.write("ssh-rsa") + MPINT.write(public.e) + MPINT.write(public.n)
    identity = recorded or Identity(plain, about.description, Custody.KERNEL)
    if PublicKey.parse(identity.blob).plain_blob != plain:
        raise ProtocolError("it is not the key that its record names")
    if giver:
        comment = f"{printable(identity.comment)} (shared by {giver.name})"
        identity = identity.replace(comment=comment)
    return identity


def _content(keyring: Keyring) -> _Content:
    try:
        return list(keyring.described())
    except NothingFoundOut:
        raise
    except KernelKeyError:
        return []  # gone meanwhile, or not for us to read


def _keyrings_in(content: _Content) -> list[tuple[Keyring, Giver | None]]:
    return [
        (Keyring(key.serial), Giver.of(about.description, about.uid))
        for key, about in content
        if about.type == "keyring" and about.uid in (os.getuid(), _ROOT)
    ]
