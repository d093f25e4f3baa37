"""Custody `sealed`: the key is kept as ciphertext that a key in the kernel opens, and a one-shot
process signs with it.

For short-lived processes only: they see the key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from ..protocol.algorithms import ALGORITHMS
from ..protocol.wire import MPINT, STRING, TEXT
from . import composite
from .library import HASHES, der, from_der

# NIST SP 800-38D: random nonces of 12 bytes are enough for 2**32 keys.
_NONCE, _TAG, _BLOCK = 12, 16, 16

# Algorithms that take the data as it is, and no word of how to.
_OF_THE_DATA_ITSELF = ("ssh-ed25519", "ssh-mldsa44-ed25519")

# As OpenSSL has it, which overwrites it when it is let go.
ParsedKey: TypeAlias = Any


def seal(sealing_key: bytes | bytearray, description: str, key_der: bytes) -> bytes:
    """The ciphertext of the key of the identity of that description: AES-256-GCM, RFC 5116."""
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(sealing_key).encrypt(nonce, key_der, description.encode())


def unseal(sealing_key: bytes | bytearray, description: str, ciphertext: bytes) -> bytearray:
    """The key as it was sealed, to be overwritten.

    Raises ValueError if that isn't what was sealed for this identity.
    """
    nonce, body, tag = ciphertext[:_NONCE], ciphertext[_NONCE:-_TAG], ciphertext[-_TAG:]
    cipher = Cipher(AES256(sealing_key), GCM(nonce, tag)).decryptor()
    cipher.authenticate_additional_data(description.encode())
    opened = bytearray(len(body) + _BLOCK)
    length = cipher.update_into(body, opened)
    try:
        cipher.finalize()
    except InvalidTag as error:
        raise ValueError("it wasn't sealed for this identity") from error
    del opened[length:]
    return opened


def parse(key_der: bytes | bytearray) -> ParsedKey:
    """A key, from what was sealed.  Raises TypeError or ValueError if it is none."""
    return from_der(key_der)


def sign(key: ParsedKey, algorithm: str, data: bytes) -> bytes:
    """A signature as ssh sends it.

    Raises TypeError, KeyError or ValueError if key and algorithm don't fit.
    """
    # By the algorithm's name: to ask for the key's type costs a fork more than the rest of this.
    if algorithm in _OF_THE_DATA_ITSELF:
        made = key.sign(data)
    elif algorithm.startswith("ecdsa"):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(HASHES[ALGORITHMS[algorithm].hash])))
        made = MPINT.write(r) + MPINT.write(s)
    else:
        made = key.sign(data, padding.PKCS1v15(), HASHES[ALGORITHMS[algorithm].hash])
    return TEXT.write(algorithm) + STRING.write(made)


def throwaways() -> Iterator[tuple[bytes, str]]:
    """A key of each type, as PKCS#8, and what it signs with: to rehearse with."""
    yield der(ed25519.Ed25519PrivateKey.generate()), "ssh-ed25519"
    yield der(ec.generate_private_key(ec.SECP256R1())), "ecdsa-sha2-nistp256"
    yield der(rsa.generate_private_key(65537, 1024)), "rsa-sha2-256"  # noqa: S505, it signs nothing
    try:
        yield der(composite.PrivateKey.from_seeds(os.urandom(64))), "ssh-mldsa44-ed25519"
    except composite.Unsupported:
        pass  # nor is there any to sign with
