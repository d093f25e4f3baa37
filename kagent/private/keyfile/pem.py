"""PEM and DER private keys, read by OpenSSL, as the values that an agent takes.

What the library doesn't open, OpenSSL's own command may, as ssh-add does: keys encrypted with
Camellia, say, and those of elliptic curves whose scalar lacks the zeros in front.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from ...protocol.privatekey import (
    CompositePrivateKey,
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    NamedPrivateKey,
    RsaPrivateKey,
)
from .. import composite
from ..library import CURVES, UNCHECKED
from . import command
from .errors import KeyFileError, ManyPrimes, UnsupportedCipher, WrongPassphrase

# What the library raises for what isn't a key; the second for one of Ed448 that is too short, say.
_NO_KEY = (ValueError, InternalError, UnsupportedAlgorithm)

# RFC 1421 4.6.1.3.  The library ends in an assertion where the vector is too short for the cipher,
# which has as many bytes as a block.
_DEK_INFO = re.compile(rb"^DEK-Info:\s*([A-Z0-9]++)[A-Z0-9-]*,([0-9A-Fa-f]*)", re.MULTILINE)
_BLOCKS = {b"AES": 16, b"DES": 8}

# RFC 7468, without the headers that an encrypted one has; and RFC 8017 A.1.2, of version 1, which
# is for keys of more than two primes, bare or as PKCS#8 has it.
_PEM = re.compile(rb"-----BEGIN (?:RSA )?PRIVATE KEY-----([A-Za-z0-9+/=\s]++)-----END")
_PKCS8 = rb"\x30\x82..\x02\x01\x00\x30\x0d\x06\x09\*\x86H\x86\xf7\x0d\x01\x01\x01\x05\x00\x04\x82.."
_MANY_PRIMES = re.compile(rb"(?:" + _PKCS8 + rb")?\x30\x82..\x02\x01\x01\x02\x82", re.DOTALL)

# OpenSSL's name -> ssh's.
_CURVES = {curve.name: name for name, curve in CURVES.items()}


def parse(
    data: bytes, passphrase: bytes, *, der: bool = False, by_command: bool = False
) -> NamedPrivateKey:
    """The key; what the library doesn't open, by OpenSSL's command if that may be.

    Raises WrongPassphrase, KeyFileError.
    """
    load = load_der_private_key if der else load_pem_private_key
    if not der and _too_short(data):
        raise KeyFileError("invalid format")
    try:
        # Checking a long RSA key takes minutes, and the agent checks what it gets anyway.
        key = _loaded(load, data, passphrase or None)
    except TypeError as error:
        if passphrase:  # which it doesn't need
            return parse(data, b"", der=der, by_command=by_command)
        raise WrongPassphrase from error
    except _NO_KEY as error:
        if _has_many_primes(data if der else _content(data)):
            raise ManyPrimes from error
        if not by_command:
            raise _complaint(error, passphrase, command.CONVERT) from error
        opened = b""
        try:
            opened = command.opened(data, passphrase)
            key = _loaded(load_der_private_key, opened, None)
        except command.CipherMissing as missing:
            raise _complaint(error, passphrase, str(missing)) from error
        except _NO_KEY:
            if _has_many_primes(opened):
                raise ManyPrimes from error
            raise _complaint(error, passphrase) from error
    return from_library(key)


def _too_short(data: bytes) -> bool:
    """Whether the initialization vector is."""
    found = _DEK_INFO.search(data)
    return found is not None and len(found[2]) // 2 < _BLOCKS.get(found[1], 0)


def _content(data: bytes) -> bytes:
    """The DER in PEM that isn't encrypted; nothing of what is."""
    found = _PEM.search(data)
    try:
        return binascii.a2b_base64(found[1]) if found else b""
    except binascii.Error:
        return b""


def _has_many_primes(data: bytes) -> bool:
    return _MANY_PRIMES.match(data) is not None


def _loaded(load: Callable[..., object], data: bytes, passphrase: bytes | None) -> object:
    try:
        return load(data, passphrase, **UNCHECKED)
    except BaseException as error:
        # An assertion of the library's own, which is no Exception and has no name to import.
        if type(error).__name__ != "PanicException":
            raise
        raise InternalError(str(error), []) from error


def _complaint(error: Exception, passphrase: bytes, remedy: str = "") -> KeyFileError:
    """What was wrong for the library; with a `remedy` where the cipher may be."""
    # The library knows ciphers that the command doesn't, and tells in no other way which it does.
    unknown = isinstance(error, UnsupportedAlgorithm) or "unknown" in str(error).lower()
    if remedy and unknown:
        return UnsupportedCipher(remedy)
    # As OpenSSH does: a wrong passphrase looks like any kind of damage.
    return WrongPassphrase() if passphrase else KeyFileError("invalid format")


def from_library(key: object) -> NamedPrivateKey:
    """A private key of the library as ssh has it.  Raises KeyFileError for other types."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public = numbers.public_numbers
        return NamedPrivateKey(
            "ssh-rsa",
            RsaPrivateKey(public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q),
        )
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        curve = _CURVES[key.curve.name]
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        scalar = key.private_numbers().private_value
        return NamedPrivateKey(f"ecdsa-sha2-{curve}", EcdsaPrivateKey(curve, point, scalar))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        point = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return NamedPrivateKey("ssh-ed25519", Ed25519PrivateKey(point, seed + point))
    if isinstance(key, composite.PrivateKey):
        seeds = b"".join(half.private_bytes_raw() for half in key)
        both = key.public_key().public_bytes_raw()
        return NamedPrivateKey("ssh-mldsa44-ed25519", CompositePrivateKey(both, seeds))
    raise KeyFileError("invalid format")
