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


class _PlainKey(Record):
    """`public` names the fields of the public half, in its order."""

    public: ClassVar[tuple[str, ...]]

    def public_blob(self, type: str) -> bytes:
        """The public half as ssh writes it."""
        names: tuple[str, ...] = self.__match_args__  # type: ignore[attr-defined]
        codecs = dict(zip(names, self.layout, strict=True))
        fields = [codecs[name].write(getattr(self, name)) for name in self.public]
        return TEXT.write(type) + b"".join(fields)


class _CertifiedKey(Record):
    certificate: bytes

    def public_blob(self, type: str) -> bytes:
        """The certificate."""
        return self.certificate


@dataclass(frozen=True, repr=False)
class RsaPrivateKey(_PlainKey):
    """RFC 9987 section 3.2.5."""

    n: int
    e: int
    d: int
    iqmp: int
    p: int
    q: int
    layout = (MPINT,) * 6
    public = ("e", "n")
    types: ClassVar = ("ssh-rsa",)


@dataclass(frozen=True, repr=False)
class EcdsaPrivateKey(_PlainKey):
    """RFC 9987 section 3.2.2: curve name, uncompressed public point, private scalar."""

    curve: str
    point: bytes
    d: int
    layout = (TEXT, STRING, MPINT)
    public = ("curve", "point")
    types: ClassVar = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


@dataclass(frozen=True, repr=False)
class Ed25519PrivateKey(_PlainKey):
    """RFC 9987 section 3.2.3: public key, and seed followed by the public key again."""

    point: bytes
    seed_and_point: bytes
    layout = (STRING, STRING)
    public = ("point",)
    types: ClassVar = ("ssh-ed25519",)


@dataclass(frozen=True, repr=False)
class SkEcdsaPrivateKey(_PlainKey):
    """A FIDO key: the handle is no secret."""

    curve: str
    point: bytes
    application: str
    flags: int
    handle: bytes
    reserved: bytes
    layout = (TEXT, STRING, TEXT, BYTE, STRING, STRING)
    public = ("curve", "point", "application")
    types: ClassVar = ("sk-ecdsa-sha2-nistp256@openssh.com",)


@dataclass(frozen=True, repr=False)
class SkEd25519PrivateKey(_PlainKey):
    """A FIDO key: the handle is no secret."""

    point: bytes
    application: str
    flags: int
    handle: bytes
    reserved: bytes
    layout = (STRING, TEXT, BYTE, STRING, STRING)
    public = ("point", "application")
    types: ClassVar = ("sk-ssh-ed25519@openssh.com",)


@dataclass(frozen=True, repr=False)
class RsaCertifiedKey(_CertifiedKey):
    """An RSA certificate and the private half of its key."""

    certificate: bytes
    d: int
    iqmp: int
    p: int
    q: int
    layout = (STRING, MPINT, MPINT, MPINT, MPINT)
    types: ClassVar = ("ssh-rsa-cert-v01@openssh.com",)


@dataclass(frozen=True, repr=False)
class EcdsaCertifiedKey(_CertifiedKey):
    """An ECDSA certificate and the private half of its key."""

    certificate: bytes
    d: int
    layout = (STRING, MPINT)
    types: ClassVar = tuple(f"{name}-cert-v01@openssh.com" for name in EcdsaPrivateKey.types)


@dataclass(frozen=True, repr=False)
class Ed25519CertifiedKey(_CertifiedKey):
    """An Ed25519 certificate and the private half of its key."""

    certificate: bytes
    point: bytes
    seed_and_point: bytes
    layout = (STRING, STRING, STRING)
    types: ClassVar = ("ssh-ed25519-cert-v01@openssh.com",)


@dataclass(frozen=True, repr=False)
class SkEcdsaCertifiedKey(_CertifiedKey):
    """A certificate of a FIDO key, and the key's handle."""

    certificate: bytes
    application: str
    flags: int
    handle: bytes
    reserved: bytes
    layout = (STRING, TEXT, BYTE, STRING, STRING)
    types: ClassVar = ("sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",)


@dataclass(frozen=True, repr=False)
class SkEd25519CertifiedKey(_CertifiedKey):
    """A certificate of a FIDO key, and the key's handle.

    OpenSSH puts the public key in between, which PROTOCOL.u2f doesn't tell.
    """

    certificate: bytes
    point: bytes
    application: str
    flags: int
    handle: bytes
    reserved: bytes
    layout = (STRING, STRING, TEXT, BYTE, STRING, STRING)
    types: ClassVar = ("sk-ssh-ed25519-cert-v01@openssh.com",)


PrivateKey: TypeAlias = (
    RsaPrivateKey
    | EcdsaPrivateKey
    | Ed25519PrivateKey
    | SkEcdsaPrivateKey
    | SkEd25519PrivateKey
    | RsaCertifiedKey
    | EcdsaCertifiedKey
    | Ed25519CertifiedKey
    | SkEcdsaCertifiedKey
    | SkEd25519CertifiedKey
)


@dataclass(frozen=True, repr=False)
class NamedPrivateKey:
    """A private key under the type name that it was sent with."""

    type: str
    key: PrivateKey

    @property
    def public_blob(self) -> bytes:
        """The public half, or the certificate, as ssh writes it."""
        return self.key.public_blob(self.type)


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
