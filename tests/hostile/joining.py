"""System calls that kagent has no use for."""

from __future__ import annotations

from kagent.keyctl import syscalls

# linux/keyctl.h
_JOIN_SESSION_KEYRING, _SET_TIMEOUT = 1, 15


def join(name: str | None = None) -> int:
    """Another session keyring for this process; its serial.

    Without a name it is a new one; else one of that name that may be searched, or, if there is
    none, a new one of that name.
    """
    text = syscalls._text(name) if name is not None else None
    address = syscalls._address(text) if text is not None else 0
    return syscalls._call("join", syscalls._KEYCTL, _JOIN_SESSION_KEYRING, address)


def set_timeout(serial: int, seconds: int) -> None:
    """Have the kernel end a key, by the clock that can be set."""
    syscalls._call("set_timeout", syscalls._KEYCTL, _SET_TIMEOUT, serial, seconds)
