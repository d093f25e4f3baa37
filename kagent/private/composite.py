"""ssh-mldsa44-ed25519: a key of ML-DSA-44 and one of Ed25519, which sign together.

draft-ietf-lamps-pq-composite-sigs, without a context, as OpenSSH 10.6 has it (ssh-mldsa-eddsa.c).
A signature is good if both halves of it are, so who breaks one of the two has nothing yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cryptography
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

try:
    # Here, where a worker that is confined later has it already.
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:  # before cryptography 47
    mldsa = None  # type: ignore[assignment]

# FIPS 204 section 4, in bytes; what is behind is Ed25519's.
_SEED, _KEY, _SIGNATURE = 32, 1312, 2420

_PREFIX = b"CompositeAlgorithmSignatures2025"
_LABEL = b"COMPSIG-MLDSA44-Ed25519-SHA512"


class Unsupported(Exception):
    """The library that is installed has no ML-DSA; the text says which has."""

    def __init__(self) -> None:
        super().__init__(
            "ssh-mldsa44-ed25519 needs the Python package cryptography of version 48 or later, "
            "with OpenSSL 3.5 or later; "
            f"this is {cryptography.__version__} with {backend.openssl_version_text()}"
        )


class PrivateKey(NamedTuple):
    """The two keys as OpenSSL has them."""

    lattice: mldsa.MLDSA44PrivateKey
    curve: Ed25519PrivateKey

    @classmethod
    def from_seeds(cls, seeds: bytes) -> PrivateKey:
        """Of two times 32 bytes.  Raises ValueError, Unsupported."""
        with _supported():
            one = mldsa.MLDSA44PrivateKey.from_seed_bytes(seeds[:_SEED])
        return cls(one, Ed25519PrivateKey.from_private_bytes(seeds[_SEED:]))

    def public_key(self) -> PublicKey:
        """The other half."""
        return PublicKey(self.lattice.public_key(), self.curve.public_key())

    def sign(self, data: bytes) -> bytes:
        """Both signatures, one behind the other."""
        framed = _framed(data)
        return self.lattice.sign(framed, _LABEL) + self.curve.sign(framed)


class PublicKey(NamedTuple):
    """The two keys as OpenSSL has them."""

    lattice: mldsa.MLDSA44PublicKey
    curve: Ed25519PublicKey

    @classmethod
    def from_public_bytes(cls, keys: bytes) -> PublicKey:
        """Of the two keys, one behind the other.  Raises ValueError, Unsupported."""
        with _supported():
            one = mldsa.MLDSA44PublicKey.from_public_bytes(keys[:_KEY])
        return cls(one, Ed25519PublicKey.from_public_bytes(keys[_KEY:]))

    def public_bytes_raw(self) -> bytes:
        """The two keys, one behind the other."""
        return self.lattice.public_bytes_raw() + self.curve.public_bytes_raw()

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises InvalidSignature."""
        framed = _framed(data)
        self.lattice.verify(signature[:_SIGNATURE], framed, _LABEL)
        self.curve.verify(signature[_SIGNATURE:], framed)


@contextmanager
def _supported() -> Iterator[None]:
    """For what takes ML-DSA.  Raises Unsupported."""
    if mldsa is None:
        raise Unsupported
    try:
        yield
    except UnsupportedAlgorithm as error:
        raise Unsupported from error


def _framed(data: bytes) -> bytes:
    """What both sign, and nobody else has signed: the byte in it is the length of the context."""
    return _PREFIX + _LABEL + b"\0" + hashlib.sha512(data).digest()
