"""take_away: link the login's kernel keys to where the agent doesn't see them, and sign on.

Each line of input is "sign", or a trick: what the key's permissions are set to before the agent
would end it, in hexadecimal, and whether its link in the agent's keyring goes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from kagent.keyctl import AsymmetricKey, Keyring, syscalls
from kagent.keyctl.errors import KernelKeyError

_OPEN = 0x3F3F3F3F


def below(ring: Keyring, seen: set[int]) -> Iterator[tuple[Keyring, int]]:
    """The asymmetric keys below it, each with the keyring that it is in."""
    if ring.serial in seen:
        return
    seen.add(ring.serial)
    with suppress(KernelKeyError):
        for key, about in list(ring.described()):
            if about.type == "keyring":
                yield from below(Keyring(key.serial), seen)
            elif about.type == "asymmetric":
                yield ring, key.serial


def take(permissions: int, hide: bool, own: int) -> set[int]:
    taken = set()
    session = Keyring(syscalls.get_keyring_id(syscalls.SESSION_KEYRING, False))
    for ring, serial in list(below(session, {own})):
        with suppress(KernelKeyError):
            syscalls.link(serial, own)
            taken.add(serial)
            if hide:
                syscalls.unlink(serial, ring.serial)
            if permissions:
                syscalls.setperm(serial, permissions)
    return taken


def sign(taken: set[int]) -> int:
    made = 0
    for serial in taken:
        with suppress(KernelKeyError):
            syscalls.setperm(serial, _OPEN)
        with suppress(KernelKeyError):
            AsymmetricKey(serial).sign(bytes(32), "sha256")
            made += 1
    return made


def main() -> None:
    own = syscalls.add_key("keyring", "own", None, syscalls.PROCESS_KEYRING)
    taken: set[int] = set()
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case [permissions, hide]:
                taken = take(int(permissions, 16), hide == "hide", own)
                print(len(taken), flush=True)
            case _:
                print(sign(taken), flush=True)


if __name__ == "__main__":
    main()
