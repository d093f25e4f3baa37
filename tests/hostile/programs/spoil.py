"""spoil: do to the login's kernel keys what each line of input says."""

from __future__ import annotations

import sys
import time

from kagent.keyctl import AsymmetricKey, Keyring, syscalls
from tests.hostile.asking import Pair
from tests.hostile.programs.take_away import below


def spoil(ring: Keyring, serial: int, deed: str, other: bytes) -> None:
    match deed:
        case "revoke":
            syscalls.revoke(serial)
        case "expire":
            syscalls.set_timeout(serial, 1)
            time.sleep(1.1)
        case "invalidate":
            syscalls.invalidate(serial)
        case "unlink":
            syscalls.unlink(serial, ring.serial)
        case "chmod":
            syscalls.setperm(serial, 0)
        case "replace":
            AsymmetricKey.add(AsymmetricKey(serial).describe().description, other, ring)


def main() -> None:
    other = Pair.rsa().der
    print("ready", flush=True)
    for line in sys.stdin:
        session = Keyring(syscalls.get_keyring_id(syscalls.SESSION_KEYRING, False))
        found = list(below(session, set()))
        for ring, serial in found:
            spoil(ring, serial, line.strip(), other)
        print(len(found), flush=True)


if __name__ == "__main__":
    main()
