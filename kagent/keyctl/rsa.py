"""RSA public keys, as the kernel gives them away.

The kernel signs with an asymmetric key and doesn't tell its public half.  But it encrypts with it,
and E(m) = m^e mod n means that n divides m^e - E(m): what several such differences have in common
is n.
"""

from __future__ import annotations

import math
import os
import time
from typing import NamedTuple

from .keys import AsymmetricKey, PkeyOp

# What is in use, the usual one first: OpenSSL and ssh-keygen; old keys; PuTTY's 37; ssh-keygen's
# 35 of long ago.
_EXPONENTS = (65537, 3, 17, 35, 37, 257)

_LONG = 1.0  # seconds of a processor, where even an emulated one takes a tenth

# What the differences may have in common besides n has small factors: three of them share a given
# prime p with a probability of p^-3.
_SMALL_FACTORS = math.factorial(1000)

# RFC 8017 section 9.2, note 1: what goes before the digest.
_DIGEST_INFO = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class NotRecovered(ValueError):
    """The public half of this key doesn't come out: the key is of another kind, or can't sign."""


class RsaPublicKey(NamedTuple):
    """The public half of an RSA key."""

    e: int
    n: int

    def verify(self, signature: bytes, digest: bytes, hash_name: str) -> bool:
        """Whether it is the RSASSA-PKCS1-v1_5 signature of that digest; `hash_name`: sha256, …"""
        size = (self.n.bit_length() + 7) // 8
        info = b"\0" + _DIGEST_INFO[hash_name] + digest
        expected = b"\0\1" + info.rjust(size - 2, b"\xff")
        number = int.from_bytes(signature, "big")
        return (
            len(signature) == size
            and number < self.n
            and pow(number, self.e, self.n).to_bytes(size, "big") == expected
        )

    def is_of(self, key: AsymmetricKey) -> bool:
        """Whether it is the public half of that key, by a signature.  Raises KernelKeyError."""
        digest = os.urandom(32)
        return self.verify(key.sign(digest, "sha256"), digest, "sha256")

    def encrypt_raw(self, data: bytes) -> bytes:
        """What AsymmetricKey.encrypt_raw gives: data^e mod n, big-endian."""
        size = (self.n.bit_length() + 7) // 8
        return pow(int.from_bytes(data, "big"), self.e, self.n).to_bytes(size, "big")


def recover(key: AsymmetricKey) -> RsaPublicKey:
    """The public half of a private RSA key, proved by a signature that it verifies.

    Takes tens of milliseconds; a key with which the kernel computes much longer has no usual
    exponent.  Raises NotRecovered for any other key, and KernelKeyError.
    """
    if not key.limits().supported_ops & PkeyOp.SIGN:
        raise NotRecovered("no private key")
    begun = time.thread_time()
    for exponent in _EXPONENTS:
        if time.thread_time() - begun > _LONG:
            break
        public = RsaPublicKey(exponent, _modulus(key, exponent))
        if public.n.bit_length() > 512 and public.is_of(key):
            return public
    raise NotRecovered("not an RSA key with a usual exponent")


def _modulus(key: AsymmetricKey, exponent: int) -> int:
    """n if e is `exponent`, else some small number."""
    # Large enough that m^e is larger than n, and far enough apart for their quotients to differ.
    scale = 1 << key.limits("enc=raw").key_size // exponent
    common = 0
    for number in (2 * scale, 3 * scale, 5 * scale):
        encrypted = key.encrypt_raw(number.to_bytes((number.bit_length() + 7) // 8, "big"))
        common = math.gcd(common, number**exponent - int.from_bytes(encrypted, "big"))
    while common and (factor := math.gcd(common, _SMALL_FACTORS)) > 1:
        common //= factor
    return common
