"""plant: leave records that say that the key with a public half may be used freely.

Everywhere where this user can write, in the form that kagent's records have.  Each line of input
has the custody that the key is said to have and its public half; or it is "clear".
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import suppress

from kagent.custody.identity import Custody, Identity
from kagent.keyctl import syscalls
from kagent.keyctl.errors import KernelKeyError

_ANCHORS = ("kagent:session", "kagent:user")
_OPEN = 0x3F3F3F3F


def _keyring(name: str, within: int) -> int:
    with suppress(KernelKeyError):
        return syscalls.search(within, "keyring", name)
    made = syscalls.add_key("keyring", name, None, within)
    syscalls.setperm(made, _OPEN)
    return made


def _places() -> Iterator[int]:
    for within in (syscalls.SESSION_KEYRING, syscalls.USER_KEYRING):
        yield within
        for name in _ANCHORS:
            with suppress(KernelKeyError):
                anchor = _keyring(name, within)
                yield anchor
                yield syscalls.add_key("keyring", f"{name} below", None, anchor)


def plant(blob: bytes, custody: Custody) -> int:
    """How many were left."""
    planted = 0
    identity = Identity(blob, "free", custody)
    names = (identity.description, identity.description.replace(":", ":sealed:", 1))
    for place in _places():
        for name in names:
            with suppress(KernelKeyError):
                key = syscalls.add_key("user", name, identity.write(), place)
                syscalls.setperm(key, _OPEN)
                planted += 1
    return planted


def clear() -> int:
    """Make room: what was left counts."""
    places = list(_places())
    for place in places[1:]:
        if place > 0:
            with suppress(KernelKeyError):
                syscalls.clear(place)
    return len(places)


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case [custody, blob]:
                print(plant(base64.b64decode(blob), Custody(custody)), flush=True)
            case _:
                print(clear(), flush=True)


if __name__ == "__main__":
    main()
