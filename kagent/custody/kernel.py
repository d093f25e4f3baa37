"""Custody `kernel`: the key is an asymmetric key, and the kernel signs.

Nothing here can hold a private key.  Loading one is in `pkcs8`, which only workers import.
"""

from __future__ import annotations

import hashlib

from ..keyctl import AsymmetricKey
from ..protocol.wire import STRING, TEXT

# RFC 8332 section 3, RFC 4253 section 6.6: signature algorithm -> its hash.
HASHES = {"ssh-rsa": "sha1", "rsa-sha2-256": "sha256", "rsa-sha2-512": "sha512"}


def sign(key: AsymmetricKey, algorithm: str, data: bytes) -> bytes:
    """A signature as ssh sends it: string algorithm, string signature.

    Blocks for milliseconds, without the GIL.  Raises KernelKeyError.
    """
    hash_name = HASHES[algorithm]
    digest = hashlib.new(hash_name, data, usedforsecurity=False).digest()
    return TEXT.write(algorithm) + STRING.write(key.sign(digest, hash_name))
