"""Custody `sealed`: the kernel stores the key, and a one-shot process signs with it.

For short-lived processes only: it sees the key.
"""

from __future__ import annotations

import errno

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_private_key

from ..keyctl import KernelKeyError, Key, Keyring
from ..protocol.wire import MPINT, STRING, TEXT
from .private import LibraryKey, der
from .rings import POSSESSOR_ONLY, sealed_description

# big_key counts 16 bytes of the user's quota whatever its size, but not every kernel has it.
_TYPES = ("big_key", "user")

# RFC 4253 section 6.6, RFC 8332, RFC 5656 section 6.2.1
HASHES: dict[str, hashes.HashAlgorithm] = {
    "ssh-rsa": hashes.SHA1(),  # noqa: S303, an old server may know nothing else
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}


def add(key: LibraryKey, description: str, keyring: Keyring) -> Key:
    """Store a key in `keyring`, for its possessor only.  Raises KernelKeyError."""
    payload, name = der(key), sealed_description(description)
    for kind in _TYPES:
        try:
            stored = keyring.add(kind, name, payload)
        except KernelKeyError as error:
            if error.errno == errno.ENODEV:  # no such key type
                continue
            raise
        stored.set_permissions(POSSESSOR_ONLY)
        return stored
    raise AssertionError("every kernel with keyrings has the type `user`")


def find(description: str, sealed: Keyring) -> Key | None:
    """The sealed key of the identity with that description."""
    name = sealed_description(description)
    for kind in _TYPES:
        key = sealed.find(kind, name)
        if key is not None:
            return key
    return None


def sign(payload: bytes, algorithm: str, data: bytes) -> bytes:
    """A signature as ssh sends it, by the key that `add` has stored as `payload`.

    Raises ValueError if key and algorithm don't fit.
    """
    # Checking a long RSA key takes longer than signing; it was checked when it came.
    key = load_der_private_key(payload, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, rsa.RSAPrivateKey):
        made = key.sign(data, padding.PKCS1v15(), HASHES[algorithm])
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        made = b"".join(
            map(MPINT.write, decode_dss_signature(key.sign(data, ec.ECDSA(HASHES[algorithm]))))
        )
    else:
        made = key.sign(data)  # type: ignore[union-attr, call-arg]
    return TEXT.write(algorithm) + STRING.write(made)
