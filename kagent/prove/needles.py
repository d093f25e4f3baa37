"""What a private key looks like in memory: its secret numbers, in the orders that libraries use.

A number is in memory whole or, where it was overwritten later, in parts.  So what is sought is
every piece of eight bytes of every form, wherever it begins.  Memory is cut into words of eight
bytes, and fifteen bytes of a number always have one of them whole: as much as that is found, at
any address.

The forms:

- big-endian: DER (PKCS#1, SEC1 and PKCS#8, as OpenSSL and the kernel take them), ssh's mpint, and
  the strings of Ed25519 and ML-DSA.  All that is secret in DER are these numbers; what is between
  them is the same for every key.
- limbs: the machine's words, the least significant first: OpenSSL, GMP, Go; and Ed25519's scalar
  everywhere.
- digits: Python's integers, 30 bits in each 32.
- base64: key files that aren't encrypted.

Beside what a key file has, there is sought what libraries derive of it: Ed25519's scalar and the
prefix of its nonces, the seeds of ML-DSA's vectors and of its nonces, and R² mod p and mod q, which
stand beside p and q where multiplication as Montgomery's is prepared (OpenSSL keeps them with the
key).  p and q themselves have no Montgomery form: p·R mod p is 0.

Left out is what exists only while a number is used, in a process that has it in one of these forms:
windows of exponents, and vectors of 52-bit or 29-bit digits; and ML-DSA's vectors, which are kept
with the seeds of its nonces.  And decimal or hexadecimal text, of which eight letters are no
evidence.  A token's key has nothing to be found: its handle is no secret.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..protocol.privatekey import (
    CompositePrivateKey,
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    PrivateKey,
    RsaPrivateKey,
)

WORD = 8  # bytes

# Different bytes in a piece.  Of zeros and the like there is much everywhere; of the pieces of a
# random number one in a thousand million is that poor.
_LEAST_VARIETY = 4

# What a process that has loaded the key need not have.
_DERIVED = frozenset(
    (
        *("scalar of the seed", "prefix of the nonces", "R² mod p", "R² mod q"),
        *("seed of ML-DSA's vectors", "seed of ML-DSA's nonces"),
    )
)


class Trace(NamedTuple):
    """What a piece is of: which key, which of its numbers, in which form."""

    key: str
    number: str
    form: str


class Needles:
    """All pieces of the secret numbers of some keys.  Short-lived: whoever has it has the keys."""

    def __init__(self, keys: Mapping[str, PrivateKey]) -> None:
        """`keys` by the names that they are to have in a Trace."""
        self._traces = {
            piece: Trace(name, number, form)
            for name, key in keys.items()
            for number, value in _secrets(key).items()
            for form, written in _forms(value)
            for piece in _pieces(written)
        }
        self._pieces = frozenset(self._traces)

    @property
    def numbers(self) -> set[tuple[str, str]]:
        """Which numbers of which keys anybody has in memory who has loaded them."""
        return {
            (trace.key, trace.number)
            for trace in self._traces.values()
            if trace.number not in _DERIVED
        }

    def among(self, words: Iterable[int]) -> set[Trace]:
        """What there is of the keys among words of memory."""
        return {self._traces[piece] for piece in self._pieces.intersection(words)}


def _secrets(key: PrivateKey) -> dict[str, bytes]:
    """By name; numbers with their most significant byte first."""
    if isinstance(key, RsaPrivateKey):
        numbers = {
            "p": key.p,
            "q": key.q,
            "d": key.d,
            "dp": key.d % (key.p - 1),
            "dq": key.d % (key.q - 1),
            "qinv": key.iqmp,
            "R² mod p": _r_squared(key.p),
            "R² mod q": _r_squared(key.q),
        }
        return {name: _big_endian(number) for name, number in numbers.items()}
    if isinstance(key, EcdsaPrivateKey):
        return {"scalar": _big_endian(key.d)}
    if isinstance(key, Ed25519PrivateKey):
        return _of_ed25519(key.seed_and_point[:32])
    if isinstance(key, CompositePrivateKey):
        # FIPS 204, algorithm 6: k and l are 4; the first 32 bytes are public.
        seed = key.seeds[:32]
        expanded = hashlib.shake_256(seed + bytes((4, 4))).digest(128)
        return {
            "seed of ML-DSA": seed,
            "seed of ML-DSA's vectors": expanded[32:96],
            "seed of ML-DSA's nonces": expanded[96:],
            **_of_ed25519(key.seeds[32:]),
        }
    return {}


def _of_ed25519(seed: bytes) -> dict[str, bytes]:
    # RFC 8032 section 5.1.5
    expanded = bytearray(hashlib.sha512(seed).digest())
    expanded[0] &= 248
    expanded[31] = expanded[31] & 127 | 64
    return {
        "seed": seed,
        "scalar of the seed": bytes(expanded[31::-1]),
        "prefix of the nonces": bytes(expanded[32:]),
    }


def _r_squared(modulus: int) -> int:
    """As BN_MONT_CTX_set(3): R is the next power of two that is a whole number of 64-bit words."""
    return pow(2, 2 * 64 * -(-modulus.bit_length() // 64), modulus)


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    number = int.from_bytes(secret, "big")
    digits = sys.int_info
    yield "big-endian", secret
    yield "limbs", _words(number, 64, WORD)
    yield "digits", _words(number, digits.bits_per_digit, digits.sizeof_digit)
    for before in range(3):  # it may begin anywhere in a group of three bytes
        letters = base64.b64encode(bytes(before) + secret)
        # Those that are of nothing but the number.
        yield "base64", letters[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]


def _words(number: int, bits: int, size: int) -> bytes:
    """Its digits of so many bits, the least significant first, each in `size` bytes."""
    *words, last = (
        (number >> place & (1 << bits) - 1).to_bytes(size, sys.byteorder)
        for place in range(0, number.bit_length(), bits)
    )
    # What fills the last one up is no part of the number: small numbers look like that as well.
    last = last.rstrip(b"\0") if sys.byteorder == "little" else last.lstrip(b"\0")
    return b"".join(words) + last


def _pieces(written: bytes) -> Iterator[int]:
    for start in range(len(written) - WORD + 1):
        piece = written[start : start + WORD]
        if len(set(piece)) >= _LEAST_VARIETY:
            yield int.from_bytes(piece, sys.byteorder)
