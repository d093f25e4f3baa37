"""Private keys into the kernel's hands.  For short-lived processes only: it sees the key."""

from __future__ import annotations

import os
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ..keyctl import AsymmetricKey, KernelKeyError, Keyring, PayloadNotParsed
from ..protocol.privatekey import NamedPrivateKey, RsaPrivateKey

_KERNEL_SIGNS = "the Linux kernel signs with RSA keys of 1024, 1536, 2048, 3072 and 4096 bits"


class Refused(Exception):
    """The key can't be held as asked; the text says why and what does work."""


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise Refused(reason) from cause


def load(named: NamedPrivateKey, description: str, keyring: Keyring) -> AsymmetricKey:
    """Put a key into `keyring` and prove that the kernel signs with it.  Raises Refused.

    `keyring` should be one that dies with this process: until the proof is there, the key must
    not outlive it.
    """
    if not isinstance(named.key, RsaPrivateKey):
        _refuse(
            f"{named.type}: the kernel can't sign with this type of key; {_KERNEL_SIGNS}. "
            "Make one with: ssh-keygen -t rsa -b 3072"
        )
    private = _rsa(named.key)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    bits = private.key_size
    try:
        key = AsymmetricKey.add(description, der, keyring)
    except PayloadNotParsed as error:
        # `der` is well-formed: it was written a moment ago.
        _refuse(
            "this kernel can't take PKCS#8 keys: load its parser with "
            "modprobe pkcs8_key_parser (as root), see kagentctl doctor",
            error,
        )
    except KernelKeyError as error:
        _refuse(f"the kernel didn't take the key: {error}", error)
    try:
        _prove(key, private.public_key())
    except (KernelKeyError, InvalidSignature) as error:
        keyring.unlink(key)
        _refuse(f"the kernel can't sign with this {bits}-bit RSA key; {_KERNEL_SIGNS}", error)
    return key


def probe(keyring: Keyring) -> None:
    """Load a throwaway key into `keyring`, sign with it and drop it.  Raises Refused."""
    private = rsa.generate_private_key(65537, 2048).private_numbers()
    public = private.public_numbers
    key = RsaPrivateKey(public.n, public.e, private.d, private.iqmp, private.p, private.q)
    keyring.unlink(load(NamedPrivateKey("ssh-rsa", key), "kagent:throwaway", keyring))


def _rsa(key: RsaPrivateKey) -> rsa.RSAPrivateKey:
    try:
        return rsa.RSAPrivateNumbers(
            p=key.p,
            q=key.q,
            d=key.d,
            dmp1=rsa.rsa_crt_dmp1(key.d, key.p),
            dmq1=rsa.rsa_crt_dmq1(key.d, key.q),
            iqmp=key.iqmp,
            public_numbers=rsa.RSAPublicNumbers(key.e, key.n),
        ).private_key()
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        _refuse(f"not a valid RSA key: {error}", error)


def _prove(key: AsymmetricKey, public: rsa.RSAPublicKey) -> None:
    """The kernel takes keys of sizes that it then can't use; only a good signature tells."""
    message = os.urandom(32)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(message)
    signature = key.sign(digest.finalize(), "sha256")
    public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
