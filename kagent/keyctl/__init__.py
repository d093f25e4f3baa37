"""The kernel's key retention service as a library: keys, keyrings, signatures made by the kernel.

Useful by itself; knows nothing of ssh.  Everything raises KernelKeyError.
"""

from .errors import (
    AlgorithmMissing,
    KernelKeyError,
    KeyExpired,
    KeyNotFound,
    KeyRejected,
    KeyRevoked,
    KeyServiceBlocked,
    NothingFoundOut,
    OperationNotSupported,
    PayloadNotParsed,
    PermissionDenied,
    QuotaExceeded,
    SessionUnusable,
)
from .keys import (
    AsymmetricKey,
    Description,
    Key,
    Keyring,
    Permission,
    PkeyOp,
    enter_private_session,
    join_anonymous_session,
    mask,
    persistent_keyring,
    session_keyring,
)
from .proc import Listed, listed
from .quota import Quota, with_patience
from .rsa import NotRecovered, RsaPublicKey, recover
from .syscalls import (
    PROCESS_KEYRING,
    SESSION_KEYRING,
    THREAD_KEYRING,
    USER_KEYRING,
    USER_SESSION_KEYRING,
    PkeyLimits,
)

__all__ = [
    "PROCESS_KEYRING",
    "SESSION_KEYRING",
    "THREAD_KEYRING",
    "USER_KEYRING",
    "USER_SESSION_KEYRING",
    "AlgorithmMissing",
    "AsymmetricKey",
    "Description",
    "KernelKeyError",
    "Key",
    "KeyExpired",
    "KeyNotFound",
    "KeyRejected",
    "KeyRevoked",
    "KeyServiceBlocked",
    "Keyring",
    "Listed",
    "NotRecovered",
    "NothingFoundOut",
    "OperationNotSupported",
    "PayloadNotParsed",
    "Permission",
    "PermissionDenied",
    "PkeyLimits",
    "PkeyOp",
    "Quota",
    "QuotaExceeded",
    "RsaPublicKey",
    "SessionUnusable",
    "enter_private_session",
    "join_anonymous_session",
    "listed",
    "mask",
    "persistent_keyring",
    "recover",
    "session_keyring",
    "with_patience",
]
