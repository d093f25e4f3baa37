"""Looking for a private key in a process's memory, in the forms that it could have there."""

from __future__ import annotations

import re
from pathlib import Path

from kagent.protocol.privatekey import RsaPrivateKey

_WINDOW = 16  # bytes; enough to be no chance hit, short enough for what was partly overwritten


def rsa_needles(key: RsaPrivateKey) -> dict[str, bytes]:
    """Fragments of every secret number of an RSA key, by name."""
    secrets = {
        "p": key.p,
        "q": key.q,
        "d": key.d,
        "dp": key.d % (key.p - 1),
        "dq": key.d % (key.q - 1),
        "qinv": key.iqmp,
    }
    return {
        f"{name}, {form}": needle
        for name, number in secrets.items()
        for form, needle in _forms(number).items()
    }


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
