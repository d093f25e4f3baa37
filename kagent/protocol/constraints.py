# What may be asked of a key when it is added (RFC 9987 section 3.2.7, OpenSSH's PROTOCOL.agent).
#
# An unknown constraint has no known length, so nothing behind it can be read; and a key must never
# be held with fewer constraints than it was sent with.  Both lead to the same answer: an error.
"""Constraints on the use of a key."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from .publickey import PUBLIC_KEY, PublicKey
from .refusals import Cause
from .wire import (
    BOOLEAN,
    BYTE,
    STRING,
    TEXT,
    UINT32,
    Codec,
    ProtocolError,
    Reader,
    Record,
    field,
    nested,
    record,
    repeated,
)

_LIFETIME = 1
_CONFIRM = 2
_EXTENSION = 255

# OpenSSH: AGENT_MAX_DEST_CONSTRAINTS, AGENT_USER_CONSTRAINT_MAX_LEN, AGENT_MAX_EXT_CERTS.
_MAX_HOPS = 1024
_MAX_USER = 256  # bytes
_MAX_CERTIFICATES = 1024


class UnknownConstraint(ProtocolError):
    """A constraint that kagent doesn't know, and so can't keep."""

    cause = Cause.CONSTRAINT


class Lifetime(Record):
    """Remove the key after this many seconds."""

    seconds: int = field(UINT32)


class Confirm(Record):
    """Ask the user before each use."""


class HostKey(Record):
    """A host key, or the key of a certification authority for hosts."""

    key: PublicKey = field(PUBLIC_KEY)
    is_authority: bool = field(BOOLEAN)


def _read_reserved(reader: Reader) -> bytes:
    reserved = STRING.read(reader)
    if reserved:
        raise UnknownConstraint("unknown extension of a destination constraint")
    return reserved


_RESERVED = Codec(_read_reserved, STRING.write)


class Hop(Record):
    """One end of a permitted hop; an empty host name stands for the agent's own machine."""

    user: str = field(TEXT)
    hostname: str = field(TEXT)
    reserved: bytes = field(_RESERVED, default=b"")
    keys: tuple[HostKey, ...] = field(repeated(record(HostKey)), default=())


class PermittedHop(Record):
    """The key may be used from host `origin` to `target`."""

    origin: Hop = field(nested(record(Hop)))
    target: Hop = field(nested(record(Hop)))
    reserved: bytes = field(_RESERVED, default=b"")


_HOPS = repeated(nested(record(PermittedHop)))


def _read_hops(reader: Reader) -> tuple[PermittedHop, ...]:
    hops = _HOPS.read(reader)
    # ssh-agent takes a list without hops for no restriction at all.
    if not 1 <= len(hops) <= _MAX_HOPS:
        raise ProtocolError(f"a destination constraint of {len(hops)} hops")
    for hop in hops:
        _check(hop)
    return hops


def _check(hop: PermittedHop) -> None:
    origin, target = hop.origin, hop.target
    if origin.user or bool(origin.hostname) != bool(origin.keys):
        raise ProtocolError("a destination constraint with an inconsistent origin")
    if not target.hostname or not target.keys:
        raise ProtocolError("a destination constraint with an incomplete target")
    if len(target.user.encode("utf-8", "surrogateescape")) > _MAX_USER:
        raise ProtocolError("a destination constraint with too long a pattern for users")


class RestrictDestination(Record):
    """restrict-destination-v00@openssh.com; refused like ssh-agent where it makes no sense."""

    hops: tuple[PermittedHop, ...] = field(nested(Codec(_read_hops, _HOPS.write)))
    extension: ClassVar = "restrict-destination-v00@openssh.com"


class SkProvider(Record):
    """sk-provider@openssh.com: the library that talks to a FIDO token."""

    path: str = field(TEXT)
    extension: ClassVar = "sk-provider@openssh.com"


_BLOBS = repeated(STRING)


def _read_certificates(reader: Reader) -> tuple[bytes, ...]:
    certificates = _BLOBS.read(reader)
    if len(certificates) > _MAX_CERTIFICATES:
        raise ProtocolError(f"{len(certificates)} certificates for the keys of a token")
    return certificates


class AssociatedCertificates(Record):
    """associated-certs-v00@openssh.com: certificates for the keys of a PKCS#11 token.

    With `certificates_only` the plain keys aren't wanted.
    """

    certificates_only: bool = field(BOOLEAN)
    certificates: tuple[bytes, ...] = field(nested(Codec(_read_certificates, _BLOBS.write)))
    extension: ClassVar = "associated-certs-v00@openssh.com"


# What a client may ask for; the custodies of tokens' keys are no choice.
CUSTODIES = ("kernel", "sealed")


def _read_custody(reader: Reader) -> str:
    custody = TEXT.read(reader)
    if custody not in CUSTODIES:
        raise UnknownConstraint(f"unknown custody {custody[:64]!r}")
    return custody


class RequireCustody(Record):
    """custody@kagent: hold the key in this one of CUSTODIES, or not at all."""

    custody: str = field(Codec(_read_custody, TEXT.write))
    extension: ClassVar = "custody@kagent"


class ConfirmForwarded(Record):
    """confirm-forwarded@kagent: ask the user before each use through a forwarded connection."""

    extension: ClassVar = "confirm-forwarded@kagent"


class IdleLifetime(Record):
    """idle-lifetime@kagent: remove the key when it hasn't been used for this many seconds."""

    seconds: int = field(UINT32)
    extension: ClassVar = "idle-lifetime@kagent"


_Extension: TypeAlias = (
    RestrictDestination
    | SkProvider
    | AssociatedCertificates
    | RequireCustody
    | ConfirmForwarded
    | IdleLifetime
)
Constraint: TypeAlias = Lifetime | Confirm | _Extension

_PLAIN: dict[int, type[Lifetime | Confirm]] = {_LIFETIME: Lifetime, _CONFIRM: Confirm}
_CODES = {cls: code for code, cls in _PLAIN.items()}
_EXTENSIONS: dict[str, type[_Extension]] = {cls.extension: cls for cls in _Extension.__args__}


def _read(reader: Reader) -> Constraint:
    code = BYTE.read(reader)
    if code in _PLAIN:
        return _PLAIN[code].read(reader)
    if code != _EXTENSION:
        raise UnknownConstraint(f"unknown constraint {code}")
    name = TEXT.read(reader)
    if name not in _EXTENSIONS:
        raise UnknownConstraint(f"unknown constraint {name[:64]!r}")
    return _EXTENSIONS[name].read(reader)


def _write(constraint: Constraint) -> bytes:
    if isinstance(constraint, Lifetime | Confirm):
        return BYTE.write(_CODES[type(constraint)]) + constraint.write()
    return BYTE.write(_EXTENSION) + TEXT.write(constraint.extension) + constraint.write()


def _read_all(reader: Reader) -> tuple[Constraint, ...]:
    constraints = repeated(Codec(_read, _write)).read(reader)
    if len({type(constraint) for constraint in constraints}) != len(constraints):
        raise ProtocolError("a constraint is given twice")
    return constraints


CONSTRAINTS = Codec(_read_all, lambda constraints: b"".join(map(_write, constraints)))
