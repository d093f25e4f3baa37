# Private keys as ADD_IDENTITY carries them (RFC 9987 section 3.2, PROTOCOL.certkeys, PROTOCOL.u2f).
# The private section of an OpenSSH key file has the same form (PROTOCOL.key).
#
# No repr: a private key must never reach a log or a traceback.
"""Private keys as they travel to an agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from .publickey import UnknownKeyType
from .wire import BYTE, MPINT, STRING, TEXT, Field, ProtocolError, Reader, Record


@dataclass(frozen=True, repr=False)
class RsaPrivateKey(Record):
    """RFC 9987 section 3.2.5."""

    n: int
    e: int
    d: int
    iqmp: int
    p: int
    q: int
    layout = (MPINT,) * 6
    types: ClassVar = ("ssh-rsa",)


@dataclass(frozen=True, repr=False)
class EcdsaPrivateKey(Record):
    """RFC 9987 section 3.2.2: curve name, uncompressed public point, private scalar."""

    curve: str
    point: bytes
    d: int
    layout = (TEXT, STRING, MPINT)
    types: ClassVar = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


@dataclass(frozen=True, repr=False)
class Ed25519PrivateKey(Record):
    """RFC 9987 section 3.2.3: public key, and seed followed by the public key again."""

    point: bytes
    seed_and_point: bytes
    layout = (STRING, STRING)
    types: ClassVar = ("ssh-ed25519",)


@dataclass(frozen=True, repr=False)
class SkEcdsaPrivateKey(Record):
    """A FIDO key: the handle is no secret."""

    curve: str
    point: bytes
    application: str
    flags: int
    handle: bytes
    reserved: bytes
    layout = (TEXT, STRING, TEXT, BYTE, STRING, STRING)
    types: ClassVar = ("sk-ecdsa-sha2-nistp256@openssh.com",)


@dataclass(frozen=True, repr=False)
class SkEd25519PrivateKey(Record):
    """A FIDO key: the handle is no secret."""

    point: bytes
    application: str
    flags: int
    handle: bytes
    reserved: bytes
    layout = (STRING, TEXT, BYTE, STRING, STRING)
    types: ClassVar = ("sk-ssh-ed25519@openssh.com",)


@dataclass(frozen=True, repr=False)
class RsaCertifiedKey(Record):
    """An RSA certificate and the private half of its key."""

    certificate: bytes
    d: int
    iqmp: int
    p: int
    q: int
    layout = (STRING, MPINT, MPINT, MPINT, MPINT)
    types: ClassVar = ("ssh-rsa-cert-v01@openssh.com",)


@dataclass(frozen=True, repr=False)
class EcdsaCertifiedKey(Record):
    """An ECDSA certificate and the private half of its key."""

    certificate: bytes
    d: int
    layout = (STRING, MPINT)
    types: ClassVar = tuple(f"{name}-cert-v01@openssh.com" for name in EcdsaPrivateKey.types)


@dataclass(frozen=True, repr=False)
class Ed25519CertifiedKey(Record):
    """An Ed25519 certificate and the private half of its key."""

    certificate: bytes
    point: bytes
    seed_and_point: bytes
    layout = (STRING, STRING, STRING)
    types: ClassVar = ("ssh-ed25519-cert-v01@openssh.com",)


@dataclass(frozen=True, repr=False)
class SkCertifiedKey(Record):
    """A certificate of a FIDO key, and the key's handle."""

    certificate: bytes
    application: str
    flags: int
    handle: bytes
    reserved: bytes
    layout = (STRING, TEXT, BYTE, STRING, STRING)
    types: ClassVar = (
        "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
        "sk-ssh-ed25519-cert-v01@openssh.com",
    )


PrivateKey: TypeAlias = (
    RsaPrivateKey
    | EcdsaPrivateKey
    | Ed25519PrivateKey
    | SkEcdsaPrivateKey
    | SkEd25519PrivateKey
    | RsaCertifiedKey
    | EcdsaCertifiedKey
    | Ed25519CertifiedKey
    | SkCertifiedKey
)


@dataclass(frozen=True, repr=False)
class NamedPrivateKey:
    """A private key under the type name that it was sent with."""

    type: str
    key: PrivateKey


_CLASSES: dict[str, type[PrivateKey]] = {
    name: cls for cls in PrivateKey.__args__ for name in cls.types
}


def _read(reader: Reader) -> NamedPrivateKey:
    name = TEXT.read(reader)
    if name not in _CLASSES:
        raise UnknownKeyType(f"key type {name[:64]!r} is not supported")
    key = _CLASSES[name].read(reader)
    curve = getattr(key, "curve", None)
    if curve is not None and curve not in name:
        raise ProtocolError(f"curve {curve[:64]!r} doesn't fit key type {name}")
    return NamedPrivateKey(name, key)


PRIVATE_KEY = Field(_read, lambda named: TEXT.write(named.type) + named.key.write())
