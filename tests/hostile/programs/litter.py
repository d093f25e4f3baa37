"""litter: leave what looks like an agent's records where they are, and can't be read or is damaged.

Each line of input is a description that is also used: that of a key that the agent holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from kagent.keyctl import syscalls
from kagent.keyctl.errors import KernelKeyError
from tests.hostile.joining import set_timeout

from .plant import _places

_VIEW = 0x01010101


def _unreadable(serial: int) -> None:
    syscalls.setperm(serial, 0)


def _only_seen(serial: int) -> None:
    syscalls.setperm(serial, _VIEW)


def _expired(serial: int) -> None:
    set_timeout(serial, 1)


# What is done to a key of type user, and what is in it.
_KINDS: dict[str, tuple[bytes, Callable[[int], None]]] = {
    "unreadable": (b"x", _unreadable),
    "seen": (b"x", _only_seen),
    "revoked": (b"x", syscalls.revoke),
    "expired": (b"x", _expired),
    "damaged": (bytes(40), lambda serial: None),
    "other version": (bytes(60) + b"\xff", lambda serial: None),
    "long": (b"\3" * 500, lambda serial: None),
}


def _raw_key(kind: bytes, name: bytes, place: int) -> None:
    """A description in no encoding."""
    buffer = syscalls._address(bytearray(kind + b"\0")), syscalls._address(bytearray(name + b"\0"))
    syscalls._call(
        "add_key", syscalls._ADD_KEY, *buffer, syscalls._address(bytearray(b"x")), 1, place
    )


def litter(name: str) -> int:
    """How many were left."""
    left = 0
    for place in list(_places())[:3]:
        for kind, (payload, spoil) in _KINDS.items():
            with suppress(KernelKeyError):
                spoil(syscalls.add_key("user", f"kagent:{kind}", payload, place))
                left += 1
        with suppress(KernelKeyError):
            ring = syscalls.add_key("keyring", name, None, place)
            syscalls.setperm(ring, 0)
            syscalls.add_key("keyring", "kagent:SHA256:" + "A" * 43, None, place)
            syscalls.add_key("logon", "kagent:logon", b"x", place)
            _raw_key(b"user", b"kagent:\xff\xfe\n", place)
            left += 4
    # One that is in the place of the genuine record, if there is one.
    for place in list(_places())[1:3]:
        with suppress(KernelKeyError):
            syscalls.setperm(syscalls.add_key("user", name, b"x", place), 0)
            left += 1
    return left


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        print(litter(line.strip()), flush=True)


if __name__ == "__main__":
    main()
