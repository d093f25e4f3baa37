"""Custody `kernel`: the key is an asymmetric key, and the kernel signs.

Nothing here can hold a private key.  Loading one is in `pkcs8`, which only workers import.
"""

from __future__ import annotations

import hashlib

from ..keyctl import AsymmetricKey
from ..protocol.publickey import PublicKey
from ..protocol.wire import STRING, TEXT

_RSA_SIZES = (1024, 1536, 2048, 3072, 4096)
SIGNS_WITH = "the Linux kernel signs with RSA keys of 1024, 1536, 2048, 3072 and 4096 bits"

# RFC 8332 section 3, RFC 4253 section 6.6: signature algorithm -> its hash.
HASHES = {"ssh-rsa": "sha1", "rsa-sha2-256": "sha256", "rsa-sha2-512": "sha512"}


def why_not(public: PublicKey) -> str:
    """Why no kernel can sign with such a key; "" if it can.

    What can be said without the private half.  With it, `pkcs8.load` tries.
    """
    if public.plain_type != "ssh-rsa":
        return f"{public.type}: the kernel can't sign with this type of key; {SIGNS_WITH}"
    if public.bits not in _RSA_SIZES:
        return f"the kernel can't sign with this {public.bits}-bit RSA key; {SIGNS_WITH}"
    return ""


def sign(key: AsymmetricKey, algorithm: str, data: bytes) -> bytes:
    """A signature as ssh sends it: string algorithm, string signature.

    Blocks for milliseconds, without the GIL.  Raises KernelKeyError.
    """
    hash_name = HASHES[algorithm]
    digest = hashlib.new(hash_name, data, usedforsecurity=False).digest()
    return TEXT.write(algorithm) + STRING.write(key.sign(digest, hash_name))
