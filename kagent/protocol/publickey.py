# Public keys and certificates as ssh writes them (RFC 4253 section 6.6, RFC 5656, RFC 8709,
# OpenSSH's PROTOCOL.certkeys and PROTOCOL.u2f): what kind, how large, which fingerprint.
"""Public keys and certificates."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .wire import (
    MPINT,
    STRING,
    TEXT,
    UINT32,
    UINT64,
    Codec,
    ProtocolError,
    Reader,
    nested,
    repeated,
)

# The two roles that a certificate can have (PROTOCOL.certkeys).
USER, HOST = 1, 2

CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"

# Plain type -> the name that ssh-add -l shows, and the fields of the public half.
_KINDS: dict[str, tuple[str, dict[str, Codec]]] = {  # type: ignore[type-arg]
    "ssh-rsa": ("RSA", {"e": MPINT, "n": MPINT}),
    "ssh-ed25519": ("ED25519", {"point": STRING}),
    "ecdsa-sha2-nistp256": ("ECDSA", {"curve": TEXT, "point": STRING}),
    "ecdsa-sha2-nistp384": ("ECDSA", {"curve": TEXT, "point": STRING}),
    "ecdsa-sha2-nistp521": ("ECDSA", {"curve": TEXT, "point": STRING}),
    "sk-ssh-ed25519@openssh.com": ("ED25519-SK", {"point": STRING, "application": TEXT}),
    "sk-ecdsa-sha2-nistp256@openssh.com": (
        "ECDSA-SK",
        {"curve": TEXT, "point": STRING, "application": TEXT},
    ),
}
_BITS = {"nistp256": 256, "nistp384": 384, "nistp521": 521}

# Algorithms of signatures that don't have the name of their key's type (RFC 8332, PROTOCOL.u2f).
_TYPES_OF_ALGORITHMS = {
    "rsa-sha2-256": "ssh-rsa",
    "rsa-sha2-512": "ssh-rsa",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256@openssh.com",
}

_MAX_PRINCIPALS = 256  # OpenSSH: SSHKEY_CERT_MAX_PRINCIPALS


class UnknownKeyType(ProtocolError):
    """A well-formed key of a type that kagent doesn't know."""


def certificate_type(plain: str) -> str:
    """'ssh-rsa' -> 'ssh-rsa-cert-v01@openssh.com'."""
    return plain.removesuffix("@openssh.com") + CERTIFICATE_SUFFIX


_PLAIN_OF_CERTIFICATE = {certificate_type(plain): plain for plain in _KINDS}
_TYPES_OF_ALGORITHMS |= {
    certificate_type(name): certificate_type(plain) for name, plain in _TYPES_OF_ALGORITHMS.items()
}


def key_type_of(algorithm: str) -> str:
    """The type of the keys or certificates that an algorithm for signatures is for."""
    return _TYPES_OF_ALGORITHMS.get(algorithm, algorithm)


@dataclass(frozen=True)
class Certificate:
    """What a certificate adds to its key.  Times are seconds since 1970; 2**64-1 is forever."""

    serial: int
    role: int  # USER or HOST
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: bytes
    authority: bytes
    signature: bytes  # the authority's, over the blob up to here


@dataclass(frozen=True)
class PublicKey:
    """A public key or certificate, parsed from its blob."""

    blob: bytes
    type: str
    plain_type: str
    numbers: dict[str, int | bytes | str]
    certificate: Certificate | None

    @classmethod
    @lru_cache(64)  # of blobs, which may be as long as a message
    def parse(cls, blob: bytes) -> PublicKey:
        """Read a whole blob.  Raises ProtocolError, UnknownKeyType."""
        reader = Reader(blob)
        name = TEXT.read(reader)
        plain = _PLAIN_OF_CERTIFICATE.get(name, name)
        if plain not in _KINDS:
            raise UnknownKeyType(f"unknown key type {name[:64]!r}")
        certified = plain != name
        if certified:
            STRING.read(reader)  # nonce
        numbers = {field: codec.read(reader) for field, codec in _KINDS[plain][1].items()}
        if numbers.get("curve") not in (None, plain.removesuffix("@openssh.com").split("-")[-1]):
            raise ProtocolError(f"curve doesn't fit key type {name}")
        certificate = _read_certificate(reader) if certified else None
        reader.expect_end()
        return cls(blob, name, plain, numbers, certificate)

    @cached_property
    def plain_blob(self) -> bytes:
        """The key's own blob; of a certificate, that of the key it certifies."""
        if self.certificate is None:
            return self.blob
        fields = _KINDS[self.plain_type][1]
        return TEXT.write(self.plain_type) + b"".join(
            codec.write(self.numbers[field]) for field, codec in fields.items()
        )

    def is_same(self, other: PublicKey) -> bool:
        """Whether it is the same key, even if one has its numbers with zeros in front.

        A certificate is the same to the last byte only, and never the same as its key.
        """
        if self.certificate is not None:
            return self.blob == other.blob
        return self.type == other.type and self.numbers == other.numbers

    @property
    def kind(self) -> str:
        """As ssh-add -l shows it: RSA, ED25519, ECDSA-CERT, …"""
        kind = _KINDS[self.plain_type][0]
        return kind if self.certificate is None else kind + "-CERT"

    @property
    def bits(self) -> int:
        """The key's size as ssh-add -l shows it."""
        if self.plain_type == "ssh-rsa":
            return int(self.numbers["n"]).bit_length()
        return _BITS.get(str(self.numbers.get("curve")), 256)

    def fingerprint(self, hash_name: str = "sha256") -> str:
        """SHA256:… without padding, or MD5:aa:bb:…; of the plain key, as ssh shows it."""
        digest = hashlib.new(hash_name, self.plain_blob)
        if hash_name == "md5":
            return "MD5:" + digest.digest().hex(":")
        encoded = base64.b64encode(digest.digest()).rstrip(b"=").decode()
        return f"{hash_name.upper()}:{encoded}"

    def line(self) -> str:
        """'type base64', as in an authorized_keys file."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


_PRINCIPALS = nested(repeated(TEXT))


def _read_certificate(reader: Reader) -> Certificate:
    serial = UINT64.read(reader)
    role = UINT32.read(reader)
    key_id = TEXT.read(reader)
    principals = _PRINCIPALS.read(reader)
    valid_after = UINT64.read(reader)
    valid_before = UINT64.read(reader)
    critical_options = _read_options(reader)
    _read_options(reader)  # extensions
    STRING.read(reader)  # reserved
    authority, signature = STRING.read(reader), STRING.read(reader)
    if role not in (USER, HOST):
        raise ProtocolError(f"a certificate for neither users nor hosts, but {role}")
    if len(principals) > _MAX_PRINCIPALS:
        raise ProtocolError(f"a certificate for {len(principals)} principals")
    return Certificate(
        serial,
        role,
        key_id,
        principals,
        valid_after,
        valid_before,
        critical_options,
        authority,
        signature,
    )


def _read_options(reader: Reader) -> bytes:
    """A list of names, each with a value, as it lies there."""
    options = STRING.read(reader)
    inner = Reader(options)
    while not inner.empty:
        STRING.read(inner)
        STRING.read(inner)
    return options


def parse_line(line: str) -> tuple[PublicKey, str]:
    """A line of a .pub file: the key and its comment.  Raises ProtocolError."""
    words = line.strip().split(None, 2)
    if len(words) < 2:
        raise ProtocolError("not a public key line")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error as error:
        raise ProtocolError(f"not base64: {error}") from error
    key = PublicKey.parse(blob)
    if key.type != words[0]:
        raise ProtocolError(f"line says {words[0][:64]!r}, key is {key.type}")
    return key, words[2] if len(words) == 3 else ""
