"""Looking for a private key in a process's memory, in the forms that it could have there."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from kagent.protocol.privatekey import EcdsaPrivateKey, Ed25519PrivateKey, PrivateKey, RsaPrivateKey

_WINDOW = 16  # bytes; enough to be no chance hit, short enough for what was partly overwritten


def needles(key: PrivateKey) -> dict[str, bytes]:
    """Fragments of every secret number of a key, by name."""
    return {
        f"{name}, {form}": needle
        for name, number in _secrets(key).items()
        for form, needle in _forms(number).items()
    }


def _secrets(key: PrivateKey) -> dict[str, int]:
    if isinstance(key, RsaPrivateKey):
        return {
            "p": key.p,
            "q": key.q,
            "d": key.d,
            "dp": key.d % (key.p - 1),
            "dq": key.d % (key.q - 1),
            "qinv": key.iqmp,
        }
    if isinstance(key, EcdsaPrivateKey):
        return {"scalar": key.d}
    assert isinstance(key, Ed25519PrivateKey)
    seed = key.seed_and_point[:32]
    # RFC 8032 section 5.1.5
    scalar = bytearray(hashlib.sha512(seed).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return {"seed": int.from_bytes(seed, "big"), "scalar": int.from_bytes(scalar, "little")}


def _forms(number: int) -> dict[str, bytes]:
    """As DER and ssh have it, as OpenSSL's and GMP's limbs, and as Python's int."""
    length = (number.bit_length() + 7) // 8
    big, little = number.to_bytes(length, "big"), number.to_bytes(length, "little")
    # Python: 30 bits in each 32.
    digits = [number >> 30 * i & (1 << 30) - 1 for i in range(length * 8 // 30)]
    python = b"".join(digit.to_bytes(4, "little") for digit in digits)
    found = {}
    for form, data in {"big-endian": big, "limbs": little, "digits": python}.items():
        for place in (len(data) // 8 * 2, len(data) // 8 * 5):
            found[f"{form} at {place}"] = data[place : place + _WINDOW]
    return found


def find(pid: int, needles: dict[str, bytes]) -> list[str]:
    """The names of those needles that are somewhere in the memory of `pid`.  As root."""
    found = set()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if area is None or "[v" in line:  # vvar, vsyscall: the kernel's
                continue
            start, end = (int(number, 16) for number in area.groups())
            memory.seek(start)
            try:
                data = memory.read(end - start)
            except OSError:
                continue
            found |= {name for name, needle in needles.items() if needle in data}
    return sorted(found)
