"""carol INBOX: put keyrings of one's own where another user's agent may look for its own.

`plant` links them into that user's inbox, which anybody may write to; `sign` signs with all that
has come into them.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from kagent.keyctl import AsymmetricKey, Keyring, syscalls
from kagent.keyctl.errors import KernelKeyError

from .tools import argument

_NAMES = ("kagent:session", "kagent:user", "kagent:persistent", "kagent:private", "kagent:lent")
_NAMES += ("kagent:from:1:daemon",)
_OPEN = 0x3F3F3F3F


def plant(inbox: int) -> list[Keyring]:
    planted = []
    for name in _NAMES:
        ring = syscalls.add_key("keyring", name, None, syscalls.PROCESS_KEYRING)
        syscalls.setperm(ring, _OPEN)
        with suppress(KernelKeyError):
            syscalls.link(ring, inbox)
            planted.append(Keyring(ring))
    return planted


def sign(rings: list[Keyring]) -> int:
    """How many signatures came of it."""
    made = 0
    for ring in rings:
        for serial in list(ring.keys()):
            with suppress(KernelKeyError):
                AsymmetricKey(serial).sign(bytes(32), "sha256")
                made += 1
    return made


def main() -> None:
    rings: list[Keyring] = []
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "plant\n":
            rings = plant(argument(1))
            print(len(rings), flush=True)
        else:
            print(sign(rings), flush=True)


if __name__ == "__main__":
    main()
