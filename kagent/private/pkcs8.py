"""RSA keys into the kernel's hands.  For short-lived processes only: it sees the key."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ..custody.kernel import SIGNS_WITH
from ..keyctl import (
    AlgorithmMissing,
    AsymmetricKey,
    KernelKeyError,
    Keyring,
    PayloadNotParsed,
    QuotaExceeded,
)
from .library import LibraryKey, der


class CannotSign(Exception):
    """The kernel can't sign with this key; the text says why."""


class ParserMissing(CannotSign):
    """This kernel takes no private keys at all, as long as its parser isn't loaded."""

    def __init__(self) -> None:
        super().__init__(
            "this kernel can't take PKCS#8 keys: its parser is not loaded (as root: modprobe "
            "pkcs8_key_parser) or not there; kagentctl doctor tells"
        )


def load(key: LibraryKey, type: str, description: str, keyring: Keyring) -> AsymmetricKey:
    """Put a key of ssh's type `type` into `keyring` and prove that the kernel signs with it.

    Only trying tells: kernels differ, and take keys of sizes that they then can't use.  `keyring`
    should be one that dies with this process: until the proof is there, the key must not outlive
    it.  Raises CannotSign, KernelKeyError.
    """
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CannotSign(f"{type}: the kernel can't sign with this type of key; {SIGNS_WITH}")
    try:
        # What was written a moment ago is well-formed: if it isn't parsed, there is no parser.
        held = AsymmetricKey.add(description, der(key), keyring)
    except PayloadNotParsed as error:
        raise ParserMissing from error
    except AlgorithmMissing as error:
        raise CannotSign(f"this kernel has no RSA: {error}") from error
    try:
        _prove(held, key.public_key())
    except QuotaExceeded:
        raise
    except (KernelKeyError, InvalidSignature) as error:
        keyring.unlink(held)
        raise CannotSign(
            f"the kernel can't sign with this {key.key_size}-bit RSA key; {SIGNS_WITH}"
        ) from error
    return held


def probe(keyring: Keyring) -> None:
    """Load a throwaway key into `keyring`, sign with it and drop it.

    Raises CannotSign, KernelKeyError.
    """
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505, made quickly and used for nothing
    keyring.unlink(load(key, "ssh-rsa", "kagent:throwaway", keyring))


def _prove(held: AsymmetricKey, public: rsa.RSAPublicKey) -> None:
    message = os.urandom(32)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(message)
    signature = held.sign(digest.finalize(), "sha256")
    public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
