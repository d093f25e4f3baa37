"""Private keys as OpenSSL has them.  For short-lived processes only: it sees the key."""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from ..protocol.algorithms import RSA_BITS
from ..protocol.privatekey import (
    CompositeCertifiedKey,
    CompositePrivateKey,
    EcdsaCertifiedKey,
    EcdsaPrivateKey,
    Ed25519CertifiedKey,
    Ed25519PrivateKey,
    NamedPrivateKey,
    RsaCertifiedKey,
    RsaPrivateKey,
)
from ..protocol.publickey import PublicKey
from ..protocol.refusals import Cause, Explained
from ..protocol.wire import ProtocolError
from . import composite

LibraryKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | composite.PrivateKey
)

# For what makes or loads an RSA key: no looking whether its numbers are prime, which takes minutes
# for a long one.  cryptography 38, Debian 12's, has a switch instead, for this process.
UNCHECKED: dict[str, Any] = {"unsafe_skip_rsa_key_validation": True}
if hasattr(backend, "_rsa_skip_check_key"):
    backend._rsa_skip_check_key = True
    UNCHECKED = {}

# X.690: a length below this is one byte, behind the type's; a longer one is in the bytes behind it.
_LONG = 0x80
_SHORTEST = 2

# By the names of protocol.algorithms.
CURVES: dict[str, ec.EllipticCurve] = {
    "nistp256": ec.SECP256R1(),
    "nistp384": ec.SECP384R1(),
    "nistp521": ec.SECP521R1(),
}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303, for ssh-rsa
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class KeyRefused(Explained):
    """The key can't be held as asked; the text says why and what does work."""


def refuse(cause: Cause, reason: str, error: Exception | None = None) -> NoReturn:
    """Raise KeyRefused."""
    raise KeyRefused(cause, reason) from error


def library_key(named: NamedPrivateKey) -> LibraryKey:
    """The key as OpenSSL has it, its halves checked against each other.  Raises KeyRefused."""
    try:
        public = PublicKey.parse(named.public_blob)
        return _build(named, public)
    except ProtocolError as error:
        refuse(Cause.INVALID_KEY, f"malformed {named.type} key: {error}", error)
    except composite.Unsupported as error:
        refuse(Cause.LIBRARY, str(error), error)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        refuse(Cause.INVALID_KEY, f"not a valid {named.type} key: {error}", error)


def der(key: LibraryKey) -> bytes:
    """The key as PKCS#8, unencrypted; a composite one as its two keys, one behind the other."""
    if isinstance(key, composite.PrivateKey):
        return b"".join(_pkcs8(half) for half in key)
    return _pkcs8(key)


def from_der(data: bytes | bytearray) -> LibraryKey:
    """The key that `der` has written.  Raises TypeError or ValueError if it is none."""
    if len(data) < _SHORTEST:
        raise ValueError("no key")
    whole = memoryview(data)
    end = 2 + data[1]
    if data[1] >= _LONG or end >= len(data):
        key: LibraryKey = _load(whole)
        return key
    return composite.PrivateKey(_load(whole[:end]), _load(whole[end:]))


def _pkcs8(key: Any) -> bytes:
    made: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return made


def _load(pkcs8: memoryview) -> Any:
    try:
        # Checking a long RSA key takes longer than signing; it was checked when it came.
        return load_der_private_key(pkcs8, None, **UNCHECKED)
    except (InternalError, UnsupportedAlgorithm) as error:
        raise ValueError("a key of an unknown type, or of none") from error


def _build(named: NamedPrivateKey, public: PublicKey) -> LibraryKey:
    key, numbers = named.key, public.numbers
    match key:
        case RsaPrivateKey() | RsaCertifiedKey():
            modulus, exponent = int(numbers["n"]), int(numbers["e"])
            if modulus.bit_length() not in RSA_BITS:
                allowed = f"{RSA_BITS[0]} to {RSA_BITS[-1]}"
                raise ValueError(f"{modulus.bit_length()} bits; ssh takes {allowed}")
            if modulus != key.p * key.q and modulus % (key.p * key.q) == 0:
                refuse(Cause.KEY_TYPE, "an RSA key of more than two primes can't be held")
            if key.p * key.q != modulus or any(
                key.d * exponent % (prime - 1) != 1 for prime in (key.p, key.q)
            ):
                raise ValueError("its halves don't fit")
            # OpenSSL would look whether p and q are prime, which for long keys takes minutes.
            return rsa.RSAPrivateNumbers(
                p=key.p,
                q=key.q,
                d=key.d,
                dmp1=rsa.rsa_crt_dmp1(key.d, key.p),
                dmq1=rsa.rsa_crt_dmq1(key.d, key.q),
                # Some clients name p and q the other way round, and leave this as it was; OpenSSL
                # notices at each signature, and signs without it.
                iqmp=rsa.rsa_crt_iqmp(key.p, key.q),
                public_numbers=rsa.RSAPublicNumbers(exponent, modulus),
            ).private_key(**UNCHECKED)
        case EcdsaPrivateKey() | EcdsaCertifiedKey():
            curve = CURVES[str(numbers["curve"])]
            point = numbers["point"]
            elliptic = ec.derive_private_key(key.d, curve)
            derived = elliptic.public_key().public_bytes(
                Encoding.X962, PublicFormat.UncompressedPoint
            )
            if derived != point:
                raise ValueError("its halves don't fit")
            return elliptic
        case Ed25519PrivateKey() | Ed25519CertifiedKey():
            edwards = ed25519.Ed25519PrivateKey.from_private_bytes(key.seed_and_point[:32])
            point = edwards.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            if not point == key.seed_and_point[32:] == key.point == numbers["point"]:
                raise ValueError("its halves don't fit")
            return edwards
        case CompositePrivateKey() | CompositeCertifiedKey():
            both = composite.PrivateKey.from_seeds(key.seeds)
            if both.public_key().public_bytes_raw() != numbers["keys"]:
                raise ValueError("its halves don't fit")
            return both
    raise ValueError("a key of a token holds nothing that could be loaded")
