# Private keys as ADD_IDENTITY carries them (RFC 9987 section 3.2, PROTOCOL.certkeys, PROTOCOL.u2f).
# The private section of an OpenSSH key file has the same form (PROTOCOL.key).
#
# No repr: a private key must never reach a log or a traceback.
"""Private keys as they travel to an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeAlias

from .algorithms import KEY_TYPES, certificate_type
from .publickey import PublicKey, UnknownKeyType
from .wire import BYTE, MPINT, STRING, TEXT, Codec, ProtocolError, Reader, Record, field


class _PlainKey(Record, repr=False):
    def public_blob(self, type: str) -> bytes:
        """The public half as ssh writes it."""
        return KEY_TYPES[type].blob({name: getattr(self, name) for name in KEY_TYPES[type].public})


class _CertifiedKey(Record, repr=False):
    certificate: bytes = field(STRING)

    def public_blob(self, type: str) -> bytes:
        """The certificate."""
        return self.certificate


class RsaPrivateKey(_PlainKey):
    """RFC 9987 section 3.2.5."""

    n: int = field(MPINT)
    e: int = field(MPINT)
    d: int = field(MPINT)
    iqmp: int = field(MPINT)
    p: int = field(MPINT)
    q: int = field(MPINT)
    types: ClassVar = ("ssh-rsa",)


class EcdsaPrivateKey(_PlainKey):
    """RFC 9987 section 3.2.2: curve name, uncompressed public point, private scalar."""

    curve: str = field(TEXT)
    point: bytes = field(STRING)
    d: int = field(MPINT)
    types: ClassVar = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


class Ed25519PrivateKey(_PlainKey):
    """RFC 9987 section 3.2.3: public key, and seed followed by the public key again."""

    point: bytes = field(STRING)
    seed_and_point: bytes = field(STRING)
    types: ClassVar = ("ssh-ed25519",)


class SkEcdsaPrivateKey(_PlainKey):
    """A FIDO key: the handle is no secret."""

    curve: str = field(TEXT)
    point: bytes = field(STRING)
    application: str = field(TEXT)
    flags: int = field(BYTE)
    handle: bytes = field(STRING)
    reserved: bytes = field(STRING)
    types: ClassVar = ("sk-ecdsa-sha2-nistp256@openssh.com",)


class SkEd25519PrivateKey(_PlainKey):
    """A FIDO key: the handle is no secret."""

    point: bytes = field(STRING)
    application: str = field(TEXT)
    flags: int = field(BYTE)
    handle: bytes = field(STRING)
    reserved: bytes = field(STRING)
    types: ClassVar = ("sk-ssh-ed25519@openssh.com",)


class CompositePrivateKey(_PlainKey):
    """The public keys of ML-DSA-44 and Ed25519, one behind the other, and so their seeds."""

    keys: bytes = field(STRING)
    seeds: bytes = field(STRING)
    types: ClassVar = ("ssh-mldsa44-ed25519",)


class RsaCertifiedKey(_CertifiedKey):
    """An RSA certificate and the private half of its key."""

    d: int = field(MPINT)
    iqmp: int = field(MPINT)
    p: int = field(MPINT)
    q: int = field(MPINT)
    types: ClassVar = tuple(map(certificate_type, RsaPrivateKey.types))


class EcdsaCertifiedKey(_CertifiedKey):
    """An ECDSA certificate and the private half of its key."""

    d: int = field(MPINT)
    types: ClassVar = tuple(map(certificate_type, EcdsaPrivateKey.types))


class Ed25519CertifiedKey(_CertifiedKey):
    """An Ed25519 certificate and the private half of its key."""

    point: bytes = field(STRING)
    seed_and_point: bytes = field(STRING)
    types: ClassVar = tuple(map(certificate_type, Ed25519PrivateKey.types))


class CompositeCertifiedKey(_CertifiedKey):
    """A certificate and the seeds of the two keys in its key."""

    seeds: bytes = field(STRING)
    types: ClassVar = tuple(map(certificate_type, CompositePrivateKey.types))


class SkEcdsaCertifiedKey(_CertifiedKey):
    """A certificate of a FIDO key, and the key's handle."""

    application: str = field(TEXT)
    flags: int = field(BYTE)
    handle: bytes = field(STRING)
    reserved: bytes = field(STRING)
    types: ClassVar = tuple(map(certificate_type, SkEcdsaPrivateKey.types))


class SkEd25519CertifiedKey(_CertifiedKey):
    """A certificate of a FIDO key, and the key's handle.

    OpenSSH puts the public key in between, which PROTOCOL.u2f doesn't tell.
    """

    point: bytes = field(STRING)
    application: str = field(TEXT)
    flags: int = field(BYTE)
    handle: bytes = field(STRING)
    reserved: bytes = field(STRING)
    types: ClassVar = tuple(map(certificate_type, SkEd25519PrivateKey.types))


PrivateKey: TypeAlias = (
    RsaPrivateKey
    | EcdsaPrivateKey
    | Ed25519PrivateKey
    | CompositePrivateKey
    | SkEcdsaPrivateKey
    | SkEd25519PrivateKey
    | RsaCertifiedKey
    | EcdsaCertifiedKey
    | Ed25519CertifiedKey
    | CompositeCertifiedKey
    | SkEcdsaCertifiedKey
    | SkEd25519CertifiedKey
)


class NamedPrivateKey(NamedTuple):
    """A private key under the type name that it was sent with."""

    type: str
    key: PrivateKey

    def __repr__(self) -> str:
        return object.__repr__(self)

    @property
    def public_blob(self) -> bytes:
        """The public half, or the certificate, as ssh writes it."""
        return self.key.public_blob(self.type)

    def certified(self, certificate: PublicKey) -> NamedPrivateKey:
        """The same key under `certificate`, which must be a certificate of it."""
        cls = _CLASSES[certificate.type]
        make: Callable[..., PrivateKey] = cls
        private = [getattr(self.key, name) for name in cls.__match_args__[1:]]
        return NamedPrivateKey(certificate.type, make(certificate.blob, *private))


_CLASSES: dict[str, type[PrivateKey]] = {
    name: cls for cls in PrivateKey.__args__ for name in cls.types
}


def _read(reader: Reader) -> NamedPrivateKey:
    name = TEXT.read(reader)
    if name not in _CLASSES:
        raise UnknownKeyType(f"key type {name[:64]!r} is not supported")
    key = _CLASSES[name].read(reader)
    curve = getattr(key, "curve", None)
    if curve is not None and curve != KEY_TYPES[name].curve:
        raise ProtocolError(f"curve {curve[:64]!r} doesn't fit key type {name}")
    return NamedPrivateKey(name, key)


PRIVATE_KEY = Codec(_read, lambda named: TEXT.write(named.type) + named.key.write())
