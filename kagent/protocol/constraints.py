# What may be asked of a key when it is added (RFC 9987 section 3.2.7, OpenSSH's PROTOCOL.agent).
#
# An unknown constraint has no known length, so nothing behind it can be read; and a key must never
# be held with fewer constraints than it was sent with.  Both lead to the same answer: an error.
"""Constraints on the use of a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from .publickey import PublicKey
from .wire import (
    BOOLEAN,
    BYTE,
    STRING,
    TEXT,
    UINT32,
    Field,
    ProtocolError,
    Reader,
    Record,
    nested,
    record,
    repeated,
)

_LIFETIME = 1
_CONFIRM = 2
_EXTENSION = 255

# OpenSSH: AGENT_MAX_DEST_CONSTRAINTS, AGENT_USER_CONSTRAINT_MAX_LEN.
_MAX_HOPS = 1024
_MAX_USER = 256  # bytes


class UnknownConstraint(ProtocolError):
    """A constraint that kagent doesn't know, and so can't keep."""


@dataclass(frozen=True)
class Lifetime(Record):
    """Remove the key after this many seconds."""

    seconds: int
    layout = (UINT32,)


@dataclass(frozen=True)
class Confirm(Record):
    """Ask the user before each use."""


@dataclass(frozen=True)
class HostKey(Record):
    """A host key, or the key of a certification authority for hosts."""

    blob: bytes
    is_authority: bool
    layout = (STRING, BOOLEAN)


def _read_reserved(reader: Reader) -> bytes:
    reserved = STRING.read(reader)
    if reserved:
        raise UnknownConstraint("unknown extension of a destination constraint")
    return reserved


_RESERVED = Field(_read_reserved, STRING.write)


@dataclass(frozen=True)
class Hop(Record):
    """One end of a permitted hop; an empty host name stands for the agent's own machine."""

    user: str
    hostname: str
    reserved: bytes = b""
    keys: tuple[HostKey, ...] = ()
    layout = (TEXT, TEXT, _RESERVED, repeated(record(HostKey)))


@dataclass(frozen=True)
class PermittedHop(Record):
    """The key may be used from host `origin` to `target`."""

    origin: Hop
    target: Hop
    reserved: bytes = b""
    layout = (nested(record(Hop)), nested(record(Hop)), _RESERVED)


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
    for key in origin.keys + target.keys:
        PublicKey.parse(key.blob)


@dataclass(frozen=True)
class RestrictDestination(Record):
    """restrict-destination-v00@openssh.com; refused like ssh-agent where it makes no sense."""

    hops: tuple[PermittedHop, ...]
    layout = (nested(Field(_read_hops, _HOPS.write)),)
    extension: ClassVar = "restrict-destination-v00@openssh.com"


@dataclass(frozen=True)
class SkProvider(Record):
    """sk-provider@openssh.com: the library that talks to a FIDO token."""

    path: str
    layout = (TEXT,)
    extension: ClassVar = "sk-provider@openssh.com"


@dataclass(frozen=True)
class AssociatedCertificates(Record):
    """associated-certs-v00@openssh.com: certificates for the keys of a PKCS#11 token."""

    certificates_only: bool
    certificates: tuple[bytes, ...]
    layout = (BOOLEAN, nested(repeated(STRING)))
    extension: ClassVar = "associated-certs-v00@openssh.com"


# What a client may ask for; the third custody, of FIDO keys, is no choice.
CUSTODIES = ("kernel", "sealed")


def _read_custody(reader: Reader) -> str:
    custody = TEXT.read(reader)
    if custody not in CUSTODIES:
        raise UnknownConstraint(f"unknown custody {custody[:64]!r}")
    return custody


@dataclass(frozen=True)
class RequireCustody(Record):
    """custody@kagent: hold the key in this one of CUSTODIES, or not at all."""

    custody: str
    layout = (Field(_read_custody, TEXT.write),)
    extension: ClassVar = "custody@kagent"


@dataclass(frozen=True)
class ConfirmForwarded(Record):
    """confirm-forwarded@kagent: ask the user before each use through a forwarded connection."""

    extension: ClassVar = "confirm-forwarded@kagent"


_Extension: TypeAlias = (
    RestrictDestination | SkProvider | AssociatedCertificates | RequireCustody | ConfirmForwarded
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
    constraints = repeated(Field(_read, _write)).read(reader)
    if len({type(constraint) for constraint in constraints}) != len(constraints):
        raise ProtocolError("a constraint is given twice")
    return constraints


CONSTRAINTS = Field(_read_all, lambda constraints: b"".join(map(_write, constraints)))
