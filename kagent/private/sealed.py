"""Custody `sealed`: the key is kept as ciphertext that a key in the kernel opens, and a one-shot
process signs with it.

For short-lived processes only: they see the key.
"""

from __future__ import annotations

import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_private_key

from ..protocol.algorithms import ALGORITHMS
from ..protocol.wire import MPINT, STRING, TEXT
from .library import HASHES, der

_NONCE = 12  # bytes: NIST SP 800-38D, which allows 2**32 keys with random ones


def seal(sealing_key: bytes, description: str, key_der: bytes) -> bytes:
    """The ciphertext of the key of the identity of that description: AES-256-GCM, RFC 5116."""
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(sealing_key).encrypt(nonce, key_der, description.encode())


def unseal(sealing_key: bytes, description: str, ciphertext: bytes) -> bytes:
    """The key as PKCS#8.  Raises ValueError if that isn't what was sealed for this identity."""
    nonce, rest = ciphertext[:_NONCE], ciphertext[_NONCE:]
    try:
        return AESGCM(sealing_key).decrypt(nonce, rest, description.encode())
    except InvalidTag as error:
        raise ValueError("it wasn't sealed for this identity") from error


def sign(key_der: bytes, algorithm: str, data: bytes) -> bytes:
    """A signature as ssh sends it, by a key as PKCS#8.

    Raises TypeError, KeyError or ValueError if key and algorithm don't fit.
    """
    # Checking a long RSA key takes longer than signing; it was checked when it came.
    key: Any = load_der_private_key(key_der, None, unsafe_skip_rsa_key_validation=True)
    # By the algorithm's name: to ask for the key's type costs a fork more than the rest of this.
    if algorithm == "ssh-ed25519":
        made = key.sign(data)
    elif algorithm.startswith("ecdsa"):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(HASHES[ALGORITHMS[algorithm].hash])))
        made = MPINT.write(r) + MPINT.write(s)
    else:
        made = key.sign(data, padding.PKCS1v15(), HASHES[ALGORITHMS[algorithm].hash])
    return TEXT.write(algorithm) + STRING.write(made)


def warm_up() -> None:
    """Sign with a throwaway key of each type, so that a fork finds OpenSSL ready."""
    for key, algorithm in (
        (ed25519.Ed25519PrivateKey.generate(), "ssh-ed25519"),
        (ec.generate_private_key(ec.SECP256R1()), "ecdsa-sha2-nistp256"),
        (rsa.generate_private_key(65537, 1024), "rsa-sha2-256"),  # noqa: S505, it signs nothing
    ):
        sealing_key = AESGCM.generate_key(256)
        sealed = seal(sealing_key, algorithm, der(key))
        sign(unseal(sealing_key, algorithm, sealed), algorithm, b"")
