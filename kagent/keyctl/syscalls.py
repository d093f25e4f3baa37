"""add_key(2), request_key(2) and keyctl(2): one function an operation, serials in and out.

Every function raises a KernelKeyError.  cffi releases the GIL during the call, so several
threads can sign at once.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import NamedTuple

from ._libc import ffi
from .errors import error_for

_libc = ffi.dlopen(None)

# asm/unistd.h; (add_key, request_key, keyctl)
_NUMBERS = {
    "x86_64": (248, 249, 250),
    "aarch64": (217, 218, 219),
    "riscv64": (217, 218, 219),
    "loongarch64": (217, 218, 219),
    "ppc64le": (269, 270, 271),
    "s390x": (278, 279, 280),
}
_MACHINE = os.uname().machine
if _MACHINE not in _NUMBERS:
    raise ImportError(f"kagent doesn't know the key syscalls' numbers on {_MACHINE}")
_ADD_KEY, _REQUEST_KEY, _KEYCTL = _NUMBERS[_MACHINE]

# linux/keyctl.h: special keyrings
THREAD_KEYRING = -1
PROCESS_KEYRING = -2
SESSION_KEYRING = -3
USER_KEYRING = -4
USER_SESSION_KEYRING = -5


class Operation(IntEnum):
    """keyctl(2)'s first argument, for what is here.  linux/keyctl.h."""

    GET_KEYRING_ID = 0
    JOIN_SESSION_KEYRING = 1
    UPDATE = 2
    REVOKE = 3
    CHOWN = 4
    SETPERM = 5
    DESCRIBE = 6
    CLEAR = 7
    LINK = 8
    UNLINK = 9
    SEARCH = 10
    READ = 11
    INSTANTIATE = 12
    SET_TIMEOUT = 15
    ASSUME_AUTHORITY = 16
    REJECT = 19
    INVALIDATE = 21
    GET_PERSISTENT = 22
    PKEY_QUERY = 24
    PKEY_ENCRYPT = 25
    PKEY_SIGN = 27
    MOVE = 30


def _text(value: str) -> bytes:
    encoded = value.encode()
    if b"\0" in encoded:
        raise ValueError("a key's type and description can't contain a NUL")
    return encoded + b"\0"


def _address(buffer: object) -> int:
    # The caller keeps `buffer` alive over the syscall.
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


def _call(
    operation: str, number: int, a: int, b: int = 0, c: int = 0, d: int = 0, e: int = 0
) -> int:
    mask = 0xFFFFFFFFFFFFFFFF  # negative serials are passed as the register holds them
    result: int = _libc.syscall(number, a & mask, b & mask, c & mask, d & mask, e & mask)
    if result < 0:
        raise error_for(ffi.errno, operation or Operation(a).name.lower())
    return result


def _keyctl(operation: Operation, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    return _call("", _KEYCTL, operation, a, b, c, d)


def add_key(
    type: str, description: str, payload: bytes | bytearray | memoryview | None, keyring: int
) -> int:
    """Create a key (or replace the one of that type and description) in `keyring`; its serial.

    `payload` is passed to the kernel from where it lies, without a copy.
    """
    kind, name = _text(type), _text(description)
    address, length = (_address(payload), len(payload)) if payload else (0, 0)
    return _call(
        f"add_key({type})", _ADD_KEY, _address(kind), _address(name), address, length, keyring
    )


def request_key(type: str, description: str, callout: str | None, keyring: int) -> int:
    """Find a key, or have request-key(8) make it if `callout` is given.  request_key(2)."""
    kind, name = _text(type), _text(description)
    info = _text(callout) if callout is not None else None
    return _call(
        f"request_key({type}, {description})",
        _REQUEST_KEY,
        _address(kind),
        _address(name),
        _address(info) if info is not None else 0,
        keyring,
    )


def get_keyring_id(keyring: int, create: bool) -> int:
    """The serial behind a special keyring.  KEYCTL_GET_KEYRING_ID(2const)."""
    return _keyctl(Operation.GET_KEYRING_ID, keyring, int(create))


def join_session_keyring() -> int:
    """Replace this process's session keyring by a new one.  KEYCTL_JOIN_SESSION_KEYRING(2const).

    Never by a name: others could join what is called the same, or have made it.
    """
    return _keyctl(Operation.JOIN_SESSION_KEYRING, 0)


def update(serial: int, payload: bytes) -> None:
    """Replace a key's payload.  KEYCTL_UPDATE(2const)."""
    _keyctl(Operation.UPDATE, serial, _address(payload), len(payload))


def revoke(serial: int) -> None:
    """Every later use gives KeyRevoked.  KEYCTL_REVOKE(2const)."""
    _keyctl(Operation.REVOKE, serial)


def chown(serial: int, uid: int, gid: int) -> None:
    """Change a key's owner and group, -1 for unchanged.  KEYCTL_CHOWN(2const)."""
    _keyctl(Operation.CHOWN, serial, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF)


def setperm(serial: int, permissions: int) -> None:
    """Set the permission mask, 0xPPUUGGOO.  KEYCTL_SETPERM(2const)."""
    _keyctl(Operation.SETPERM, serial, permissions)


def _fetch(operation: Operation, serial: int, guess: int) -> bytes:
    """Describe or read: the kernel tells the length it needs, which may grow between two calls."""
    while True:
        buffer = bytearray(guess)
        length = _keyctl(operation, serial, _address(buffer), guess)
        if length <= guess:
            return bytes(memoryview(buffer)[:length])
        guess = length


def describe(serial: int) -> str:
    """'type;uid;gid;permissions;description'.  KEYCTL_DESCRIBE(2const)."""
    return _fetch(Operation.DESCRIBE, serial, 256).rstrip(b"\0").decode(errors="replace")


def read(serial: int) -> bytes:
    """A key's payload, or a keyring's serials.  KEYCTL_READ(2const)."""
    return _fetch(Operation.READ, serial, 1024)


def read_secret(serial: int) -> bytearray:
    """As `read`, but what comes, and all that it went through here, can be overwritten."""
    buffer, length = bytearray(), 1024
    while len(buffer) < length:
        buffer = bytearray(length)
        length = _keyctl(Operation.READ, serial, _address(buffer), len(buffer))
    payload = buffer[:length]
    overwrite(buffer)
    return payload


def overwrite(secret: bytearray) -> None:
    """Fill it with zeros where it lies."""
    secret[:] = bytes(len(secret))


def clear(keyring: int) -> None:
    """Unlink all that a keyring holds.  KEYCTL_CLEAR(2const)."""
    _keyctl(Operation.CLEAR, keyring)


def link(serial: int, keyring: int) -> None:
    """KEYCTL_LINK(2const)."""
    _keyctl(Operation.LINK, serial, keyring)


def unlink(serial: int, keyring: int) -> None:
    """KEYCTL_UNLINK(2const).  A key with no link left is destroyed."""
    _keyctl(Operation.UNLINK, serial, keyring)


def move(serial: int, source: int, target: int) -> None:
    """Move a link from one keyring to another in one step.  KEYCTL_MOVE(2const).

    A key of that type and description in `target` is displaced.
    """
    _keyctl(Operation.MOVE, serial, source, target)


def search(keyring: int, type: str, description: str) -> int:
    """The serial of a key in the tree under `keyring`.  KEYCTL_SEARCH(2const)."""
    kind, name = _text(type), _text(description)
    return _keyctl(Operation.SEARCH, keyring, _address(kind), _address(name))


def instantiate(serial: int, payload: bytes | bytearray, keyring: int) -> None:
    """Give a key under construction its payload.  KEYCTL_INSTANTIATE(2const)."""
    _keyctl(Operation.INSTANTIATE, serial, _address(payload), len(payload), keyring)


def reject(serial: int, seconds: int, error: int, keyring: int) -> None:
    """Answer a key under construction with that errno, for a while.  KEYCTL_REJECT(2const)."""
    _keyctl(Operation.REJECT, serial, seconds, error, keyring)


def assume_authority(serial: int) -> None:
    """Act for the requester of a key under construction.  KEYCTL_ASSUME_AUTHORITY(2const)."""
    _keyctl(Operation.ASSUME_AUTHORITY, serial)


def set_timeout(serial: int, seconds: int) -> None:
    """The kernel ends the key after `seconds`; 0 takes a timeout away.

    KEYCTL_SET_TIMEOUT(2const).
    """
    _keyctl(Operation.SET_TIMEOUT, serial, seconds)


def invalidate(serial: int) -> None:
    """Destroy a key at once, whoever links to it.  KEYCTL_INVALIDATE(2const)."""
    _keyctl(Operation.INVALIDATE, serial)


def get_persistent(uid: int, keyring: int) -> int:
    """Link a user's persistent keyring (-1: one's own) into `keyring`; its serial.

    KEYCTL_GET_PERSISTENT(2const).
    """
    return _keyctl(Operation.GET_PERSISTENT, uid & 0xFFFFFFFF, keyring)


class PkeyLimits(NamedTuple):
    """struct keyctl_pkey_query: key size in bits, the rest in bytes."""

    supported_ops: int
    key_size: int
    max_data_size: int
    max_sig_size: int
    max_enc_size: int
    max_dec_size: int


_PKEY_LIMITS = struct.Struct("=II4H40x")
_PKEY_PARAMS = struct.Struct("=iII28x")
_LARGEST_RESULT = 2048  # bytes: of 16384 bits, the most that the kernel computes with


def pkey_query(serial: int, info: str) -> PkeyLimits:
    """What an asymmetric key can do.  KEYCTL_PKEY_QUERY(2const)."""
    answer = bytearray(_PKEY_LIMITS.size)
    text = _text(info)
    _keyctl(Operation.PKEY_QUERY, serial, 0, _address(text), _address(answer))
    return PkeyLimits(*_PKEY_LIMITS.unpack(answer))


def _pkey(operation: Operation, serial: int, info: str, data: bytes, size: int) -> bytes:
    # The kernel writes the whole result whatever size it is told, and somebody may have put a
    # larger key in the place of the one that was meant: there is room for the largest.
    text, result = _text(info), bytearray(max(size, _LARGEST_RESULT))
    params = _PKEY_PARAMS.pack(serial, len(data), size)
    length = _keyctl(operation, _address(params), _address(text), _address(data), _address(result))
    return bytes(memoryview(result)[:length])


def pkey_sign(serial: int, info: str, digest: bytes, size: int) -> bytes:
    """Sign a digest.  KEYCTL_PKEY_SIGN(2const).

    `size` is that of the key in bytes, as pkey_query's max_sig_size; a kernel may refuse another.
    """
    return _pkey(Operation.PKEY_SIGN, serial, info, digest, size)


def pkey_encrypt(serial: int, info: str, data: bytes, max_enc_size: int) -> bytes:
    """Encrypt with the public half.  KEYCTL_PKEY_ENCRYPT(2const); size as for pkey_sign."""
    return _pkey(Operation.PKEY_ENCRYPT, serial, info, data, max_enc_size)
