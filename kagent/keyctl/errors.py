"""What the kernel's key service answers, as exceptions that say what it means.

All are OSErrors, so `errno` is there for who wants it.  keyctl(2), add_key(2), request_key(2).
"""

from __future__ import annotations

import errno
import os


class KernelKeyError(OSError):
    """The key service refused.  Base of all errors of this package."""

    meaning = ""
    errno: int

    def __str__(self) -> str:
        told = f"{self.strerror}: {os.strerror(self.errno)}"
        return f"{told} ({self.meaning})" if self.meaning else told


class KeyNotFound(KernelKeyError):
    """ENOKEY, ENOENT."""

    meaning = "there is no such key, or it can't be found from this process's keyrings"


class KeyExpired(KernelKeyError):
    """EKEYEXPIRED."""

    meaning = "the key's lifetime has ended"


class KeyRevoked(KernelKeyError):
    """EKEYREVOKED."""

    meaning = "the key was revoked"


class KeyRejected(KernelKeyError):
    """EKEYREJECTED."""

    meaning = "the key was refused by the helper that should have provided it, or failed a check"


class QuotaExceeded(KernelKeyError):
    """EDQUOT."""

    meaning = (
        "this user's key quota is used up: see /proc/key-users; "
        "raise it with sysctl kernel.keys.maxkeys and kernel.keys.maxbytes"
    )


class PayloadNotParsed(KernelKeyError):
    """EBADMSG."""

    meaning = (
        "the kernel has no parser for this, or the data is damaged: "
        "load the parser with modprobe pkcs8_key_parser"
    )


class AlgorithmMissing(KernelKeyError):
    """ENOPKG."""

    meaning = "the kernel has no implementation of the key's algorithm"


class OperationNotSupported(KernelKeyError):
    """EOPNOTSUPP."""

    meaning = "this type of key doesn't do that"


class SessionUnusable(KernelKeyError):
    """The session keyring is revoked, say, as after the end of its login."""

    meaning = (
        "the session keyring that this process has inherited can't be used, as after the end of "
        "its login; keyctl session starts a shell in a new one"
    )


class PermissionDenied(KernelKeyError):
    """EACCES."""

    meaning = "the key's permissions don't allow it, or this process doesn't possess the key"


class KeyServiceBlocked(KernelKeyError):
    """EPERM, ENOSYS: a container's seccomp filter, or a kernel without CONFIG_KEYS."""

    meaning = (
        "key syscalls are blocked here: a container's seccomp filter, or a kernel built without "
        "keyrings; in a container allow add_key, keyctl and request_key"
    )


class NothingFoundOut(KernelKeyError):
    """ENOMEM, EINTR: it says something of the machine, and nothing of the key.

    Not to be taken for a key that is gone: who passes that over would lose what is there.
    """

    meaning = "the kernel couldn't even look: the machine has no memory left, say; try again"


_BY_ERRNO: dict[int, type[KernelKeyError]] = {
    errno.ENOKEY: KeyNotFound,
    errno.ENOENT: KeyNotFound,
    errno.EKEYEXPIRED: KeyExpired,
    errno.EKEYREVOKED: KeyRevoked,
    errno.EKEYREJECTED: KeyRejected,
    errno.EDQUOT: QuotaExceeded,
    errno.EBADMSG: PayloadNotParsed,
    errno.ENOPKG: AlgorithmMissing,
    errno.EOPNOTSUPP: OperationNotSupported,
    errno.EACCES: PermissionDenied,
    errno.EPERM: KeyServiceBlocked,
    errno.ENOSYS: KeyServiceBlocked,
    errno.ENOMEM: NothingFoundOut,
    errno.EINTR: NothingFoundOut,
}


def error_for(number: int, operation: str) -> KernelKeyError:
    """The exception for errno `number`, met while doing `operation`."""
    return _BY_ERRNO.get(number, KernelKeyError)(number, operation)
