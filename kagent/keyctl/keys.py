"""Keys and keyrings as objects: a serial with the operations that fit it.

An object is a name for a kernel key, not its owner: dropping it changes nothing in the kernel.
keyrings(7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import IntFlag
from typing import NamedTuple

from . import syscalls
from .errors import (
    KernelKeyError,
    KeyExpired,
    KeyNotFound,
    KeyRevoked,
    NothingFoundOut,
    PermissionDenied,
    SessionUnusable,
)


class Permission(IntFlag):
    """One class's rights; `mask` puts four classes into a permission word."""

    VIEW = 0x01
    READ = 0x02
    WRITE = 0x04
    SEARCH = 0x08
    LINK = 0x10
    SETATTR = 0x20
    ALL = 0x3F


def mask(possessor: int = 0, user: int = 0, group: int = 0, other: int = 0) -> int:
    """0xPPUUGGOO, as keyctl setperm takes it."""
    return possessor << 24 | user << 16 | group << 8 | other


class Description(NamedTuple):
    """What KEYCTL_DESCRIBE tells."""

    type: str
    uid: int
    gid: int
    permissions: int
    description: str


class PkeyOp(IntFlag):
    """struct keyctl_pkey_query.supported_ops."""

    ENCRYPT = 1
    DECRYPT = 2
    SIGN = 4
    VERIFY = 8


class Key:
    """Any key of the kernel, by serial."""

    __slots__ = ("serial",)

    def __init__(self, serial: int) -> None:
        self.serial = serial

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.serial == self.serial

    def __hash__(self) -> int:
        return hash(self.serial)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.serial})"

    def describe(self) -> Description:
        """Type, owner, permissions and description."""
        kind, uid, gid, permissions, description = syscalls.describe(self.serial).split(";", 4)
        return Description(kind, int(uid), int(gid), int(permissions, 16), description)

    @property
    def alive(self) -> bool:
        """Whether it is neither revoked, nor expired, nor gone."""
        try:
            self.describe()
        except (KeyNotFound, KeyRevoked, KeyExpired):
            return False
        return True

    def read(self) -> bytes:
        """The payload, for types that give it."""
        return syscalls.read(self.serial)

    def update(self, payload: bytes) -> None:
        """Replace the payload."""
        syscalls.update(self.serial, payload)

    def set_permissions(self, permissions: int) -> None:
        """Set 0xPPUUGGOO."""
        syscalls.setperm(self.serial, permissions)

    def revoke(self) -> None:
        """Make every later use fail with KeyRevoked."""
        syscalls.revoke(self.serial)

    def invalidate(self) -> None:
        """Destroy the key at once, wherever it is linked.  Needs search permission."""
        syscalls.invalidate(self.serial)


class AsymmetricKey(Key):
    """A key of type `asymmetric`: its private half never leaves the kernel.  asymmetric-key(7)."""

    __slots__ = ()

    @classmethod
    def add(cls, description: str, payload: bytes | bytearray, keyring: Keyring) -> AsymmetricKey:
        """Load PKCS#8 or X.509 DER.

        An RSA key of a size that the kernel can't handle is taken here without an error and
        fails in `limits`.
        """
        return cls(syscalls.add_key("asymmetric", description, payload, keyring.serial))

    def limits(self, info: str = "enc=pkcs1") -> syscalls.PkeyLimits:
        """Key size in bits, and the sizes in bytes of what can be signed and results."""
        return syscalls.pkey_query(self.serial, info)

    def sign(self, digest: bytes, hash_name: str, size: int = 0) -> bytes:
        """RSASSA-PKCS1-v1_5 of a finished digest; `hash_name` as in /proc/crypto: sha256, …

        The kernel adds the DigestInfo.  `size` is the key's in bytes; without it the kernel is
        asked, which takes it nearly as long as all but the signature itself.
        """
        info = f"enc=pkcs1 hash={hash_name}"
        size = size or self.limits(info).max_sig_size
        return syscalls.pkey_sign(self.serial, info, digest, size)

    def encrypt_raw(self, data: bytes, size: int = 0) -> bytes:
        """data^e mod n, big-endian; `size` as for `sign`."""
        info = "enc=raw"
        size = size or self.limits(info).max_enc_size
        return syscalls.pkey_encrypt(self.serial, info, data, size)


class Keyring(Key):
    """A key that holds links to keys."""

    __slots__ = ()

    @classmethod
    def special(cls, keyring: int, *, create: bool = False) -> Keyring:
        """The keyring behind SESSION_KEYRING, USER_KEYRING, …

        A process without a session keyring gets the user-session keyring, unless `create`.
        """
        return cls(syscalls.get_keyring_id(keyring, create))

    @classmethod
    def create(cls, name: str, within: Keyring) -> Keyring:
        """A new empty keyring, linked into `within`; replaces a link to one of that name."""
        return cls(syscalls.add_key("keyring", name, None, within.serial))

    def add(self, type: str, description: str, payload: bytes | bytearray) -> Key:
        """Add a key here, or replace the one of that type and description."""
        return Key(syscalls.add_key(type, description, payload, self.serial))

    def keys(self) -> Sequence[int]:
        """The serials linked here, in no particular order."""
        payload = self.read()
        return struct.unpack(f"={len(payload) // 4}i", payload)

    def described(self) -> Iterator[tuple[Key, Description]]:
        """What is linked here; a key that goes away meanwhile is passed over."""
        for serial in self.keys():
            key = Key(serial)
            try:
                yield key, key.describe()
            except NothingFoundOut:
                raise
            except KernelKeyError:
                continue

    def search(self, type: str, description: str) -> Key | None:
        """The live key of that type and description, linked here or in a keyring below.

        Those may be anybody's, where others can link something here: see `find`.
        """
        try:
            return Key(syscalls.search(self.serial, type, description))
        except (KeyNotFound, KeyExpired, KeyRevoked, PermissionDenied):
            return None

    def find(self, type: str, description: str) -> Key | None:
        """The same, and only if it is linked directly here."""
        key = self.search(type, description)
        return key if key and key.serial in self.keys() else None

    def link(self, key: Key) -> None:
        """Hold `key` here too."""
        syscalls.link(key.serial, self.serial)

    def unlink(self, key: Key) -> None:
        """Hold `key` no longer; without another link it is destroyed.

        The kernel goes by type and description: one of that name that is linked here in the place
        of `key` is let go of instead.
        """
        syscalls.unlink(key.serial, self.serial)

    def move(self, key: Key, target: Keyring) -> None:
        """Move the link to `key` from here to `target`, in the place of one of that name there."""
        syscalls.move(key.serial, self.serial, target.serial)

    def destroy(self, key: Key) -> None:
        """End `key` wherever it is linked, and forget it here at once.

        Invalidating alone would leave it listed until the kernel's collector has passed; and it
        needs possession, so it comes first.  A key that is gone already is no error.  Whoever has
        a link of their own may change its permissions, also in between: but who can change them
        again leaves us SETATTR, by which it can be revoked, and who can't leaves us SEARCH, by
        which it can be invalidated, or has no use for it either.  One of that name that is here in
        its place by now stays.
        """
        for end in (key.invalidate, key.revoke, key.invalidate):
            try:
                end()
                break
            except PermissionDenied:
                continue
            except (KeyNotFound, KeyExpired, KeyRevoked):
                break
        try:
            if key.serial in self.keys():
                self.unlink(key)
        except KeyNotFound:
            pass
        except NothingFoundOut:
            if key.alive:  # else the kernel forgets it by itself, a little later
                raise

    def clear(self) -> None:
        """Unlink everything."""
        syscalls.clear(self.serial)


def session_keyring() -> Keyring:
    """This process's session keyring, or the user-session keyring where there is none.

    Raises SessionUnusable.
    """
    try:
        return Keyring.special(syscalls.SESSION_KEYRING)
    except (KeyRevoked, KeyExpired, KeyNotFound, PermissionDenied) as error:
        raise SessionUnusable(error.errno, error.strerror) from error


def persistent_keyring(within: Keyring) -> Keyring:
    """This user's persistent keyring, linked into `within`; its time begins anew.

    persistent-keyring(7).
    """
    return Keyring(syscalls.get_persistent(-1, within.serial))


def enter_private_session(*holding: Keyring, besides: Sequence[Keyring] = ()) -> Keyring:
    """Join a new session keyring that no other process can possess, holding `holding`.

    And `besides`, as far as they can be linked: others may have filled them so deep that they
    can't.  The session has no name of its own: a name stands in /proc/keys, and whoever knows it
    can join a keyring that they may search.  Possession of what is held comes with the session that
    is left, so the process keyring keeps it meanwhile; and what is linked here is linked once the
    permissions are the possessor's alone.  Children inherit the session, and not the process
    keyring, which is left empty.
    """
    process = Keyring.special(syscalls.PROCESS_KEYRING, create=True)
    for keyring in holding:
        process.link(keyring)
    for keyring in besides:
        with suppress(KernelKeyError):
            process.link(keyring)
    joined = join_anonymous_session()
    joined.set_permissions(mask(possessor=Permission.ALL))
    for keyring in holding:
        joined.link(keyring)
    for keyring in besides:
        with suppress(KernelKeyError):
            joined.link(keyring)
    process.clear()
    return joined


def join_anonymous_session() -> Keyring:
    """Leave this process's session keyring for a new, empty one.  Children inherit it."""
    return Keyring(syscalls.join_session_keyring())
