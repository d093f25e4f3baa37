"""Signatures by PKCS#11 tokens, whose mechanisms hash nothing: what a token is given, and what
becomes of what it gives (ssh-pkcs11.c)."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ..protocol.algorithms import ALGORITHMS
from ..protocol.wire import MPINT, STRING, TEXT

# RFC 8017 section 9.2, note 1: what stands before the digest in an RSA signature.
_DIGEST_INFO = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


def prepare(algorithm: str, data: bytes) -> bytes | None:
    """What the token's mechanism signs (CKM_RSA_PKCS, CKM_ECDSA); None for another algorithm."""
    about = ALGORITHMS[algorithm]
    if not about.hash:
        return None
    digest = hashlib.new(about.hash, data).digest()
    return _DIGEST_INFO[about.hash] + digest if about.key_type == "ssh-rsa" else digest


def finish(algorithm: str, made: bytes) -> bytes:
    """A signature as ssh sends it.  Raises ValueError."""
    if ALGORITHMS[algorithm].key_type != "ssh-rsa":
        r, s = decode_dss_signature(made)
        made = MPINT.write(r) + MPINT.write(s)
    return TEXT.write(algorithm) + STRING.write(made)
