# Public keys and certificates as ssh writes them (RFC 4253 section 6.6, RFC 5656, RFC 8709,
# OpenSSH's PROTOCOL.certkeys and PROTOCOL.u2f): what kind, how large, which fingerprint.
"""Public keys and certificates."""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property

from .algorithms import KEY_TYPES, PLAIN_TYPES, KeyType
from .refusals import Cause
from .wire import (
    REST,
    STRING,
    TEXT,
    UINT32,
    UINT64,
    Codec,
    ProtocolError,
    Reader,
    Record,
    field,
    nested,
    repeated,
)

# The two roles that a certificate can have (PROTOCOL.certkeys).
USER, HOST = 1, 2

_MAX_PRINCIPALS = 256  # OpenSSH: SSHKEY_CERT_MAX_PRINCIPALS


class UnknownKeyType(ProtocolError):
    """A well-formed key of a type that kagent doesn't know."""

    cause = Cause.KEY_TYPE


def _read_options(reader: Reader) -> bytes:
    """A list of names, each with a value, as it lies there."""
    options = STRING.read(reader)
    inner = Reader(options)
    while not inner.empty:
        STRING.read(inner)
        STRING.read(inner)
    return options


_OPTIONS = Codec(_read_options, STRING.write)


class Certificate(Record):
    """What a certificate adds to its key.  Times are seconds since 1970; 2**64-1 is forever."""

    serial: int = field(UINT64)
    role: int = field(UINT32)  # USER or HOST
    key_id: str = field(TEXT)
    principals: tuple[str, ...] = field(nested(repeated(TEXT)))
    valid_after: int = field(UINT64)
    valid_before: int = field(UINT64)
    critical_options: bytes = field(_OPTIONS)
    extensions: bytes = field(_OPTIONS)
    reserved: bytes = field(STRING)
    authority: bytes = field(STRING)
    signature: bytes = field(STRING)  # the authority's, over the blob up to here

    def is_of_host(self, now: float) -> bool:
        """Whether it says of a host who it is, at that time."""
        valid = self.valid_after <= now < self.valid_before
        return valid and self.role == HOST and not self.critical_options

    @cached_property
    def authority_key(self) -> PublicKey:
        """`authority`, of whatever type.  Raises ProtocolError."""
        return PublicKey.parse_any(self.authority)


class PublicKey:
    """A public key or certificate, parsed from its blob, which says all that there is to it."""

    def __init__(
        self,
        blob: bytes,
        type: str,
        plain_type: str,
        numbers: dict[str, int | bytes | str],
        certificate: Certificate | None,
    ) -> None:
        self.blob = blob
        self.type = type
        self.plain_type = plain_type
        self.numbers = numbers
        self.certificate = certificate

    @classmethod
    def parse_any(cls, blob: bytes) -> PublicKey:
        """Read a whole blob, also of a type that isn't known: of such a key all is one number.

        It is the same as another to the byte only, and nothing by it can be checked, so nothing by
        it is to be believed.  For keys of others, of which one of a new type may spoil nothing
        else.  Raises ProtocolError.
        """
        reader = Reader(blob)
        name = TEXT.read(reader)
        if name in KEY_TYPES or name in PLAIN_TYPES:
            return cls.parse(blob)
        return cls(blob, name, name, {"all": REST.read(reader)}, None)

    @classmethod
    def parse(cls, blob: bytes) -> PublicKey:
        """Read a whole blob.  Raises ProtocolError, UnknownKeyType."""
        reader = Reader(blob)
        name = TEXT.read(reader)
        plain = PLAIN_TYPES.get(name, name)
        if plain not in KEY_TYPES:
            raise UnknownKeyType(f"unknown key type {name[:64]!r}")
        certified = plain != name
        if certified:
            STRING.read(reader)  # nonce
        about = KEY_TYPES[plain]
        numbers = {number: codec.read(reader) for number, codec in about.public.items()}
        if numbers.get("curve", about.curve) != about.curve:
            raise ProtocolError(f"curve doesn't fit key type {name}")
        certificate = _read_certificate(reader) if certified else None
        reader.expect_end()
        return cls(blob, name, plain, numbers, certificate)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.blob == other.blob

    def __hash__(self) -> int:
        return hash(self.blob)

    @property
    def known(self) -> bool:
        """Whether its type is."""
        return self.plain_type in KEY_TYPES

    @property
    def about(self) -> KeyType:
        """What is known of its type, which is known."""
        return KEY_TYPES[self.plain_type]

    @cached_property
    def plain_blob(self) -> bytes:
        """The key's own blob; of a certificate, that of the key it certifies."""
        if self.certificate is None:
            return self.blob
        return self.about.blob(self.numbers)

    def is_same(self, other: PublicKey) -> bool:
        """Whether it is the same key, even if one has its numbers with zeros in front.

        A certificate is the same to the last byte only, and never the same as its key.
        """
        if self.certificate is not None:
            return self.blob == other.blob
        return self.type == other.type and self.numbers == other.numbers

    @property
    def kind(self) -> str:
        """As ssh-add -l shows it: RSA, ED25519, ECDSA-CERT, …; a type that isn't known as it is."""
        if not self.known:
            return self.type
        return self.about.kind + ("" if self.certificate is None else "-CERT")

    @property
    def bits(self) -> int:
        """The key's size as ssh-add -l shows it."""
        return self.about.bits or int(self.numbers["n"]).bit_length()

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


def _read_certificate(reader: Reader) -> Certificate:
    certificate = Certificate.read(reader)
    if certificate.role not in (USER, HOST):
        raise ProtocolError(f"a certificate for neither users nor hosts, but {certificate.role}")
    if len(certificate.principals) > _MAX_PRINCIPALS:
        raise ProtocolError(f"a certificate for {len(certificate.principals)} principals")
    return certificate


# Somebody else's, of whatever type.
PUBLIC_KEY = Codec(
    lambda reader: PublicKey.parse_any(STRING.read(reader)), lambda key: STRING.write(key.blob)
)


def parse_line(line: str) -> tuple[PublicKey, str]:
    """A line of a .pub file: the key and its comment.  Raises ProtocolError."""
    words = line.strip().split(None, 2)
    if len(words) < 2:
        raise ProtocolError("not a public key line")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except ValueError as error:  # also where it isn't ASCII
        raise ProtocolError(f"not base64: {error}") from error
    key = PublicKey.parse(blob)
    if key.type != words[0]:
        raise ProtocolError(f"line says {words[0][:64]!r}, key is {key.type}")
    return key, words[2] if len(words) == 3 else ""
