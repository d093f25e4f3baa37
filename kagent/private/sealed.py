"""Custody `sealed`: the kernel stores the key, and a one-shot process signs with it.

For short-lived processes only: it sees the key.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_private_key

from ..protocol.algorithms import ALGORITHMS
from ..protocol.wire import MPINT, STRING, TEXT
from .library import HASHES, der


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
        sign(der(key), algorithm, b"")
