"""The keys of hosts, authorities and users, and the hops that are permitted between the hosts."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kagent.private import composite
from kagent.protocol.algorithms import certificate_type
from kagent.protocol.constraints import Hop, HostKey, PermittedHop
from kagent.protocol.privatekey import Ed25519PrivateKey, NamedPrivateKey
from kagent.protocol.publickey import HOST, PublicKey, parse_line
from kagent.protocol.wire import MPINT, STRING, TEXT, UINT32, UINT64, Reader, repeated

Private: TypeAlias = (
    ed25519.Ed25519PrivateKey
    | ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | composite.PrivateKey
)

FOREVER = 2**64 - 1


@dataclass(frozen=True)
class Key:
    """A key pair, of a host, an authority or a user; `blob` is its public key or certificate."""

    name: str
    private: Private
    blob: bytes

    @classmethod
    def of(cls, name: str, private: Private) -> Key:
        if isinstance(private, composite.PrivateKey):
            keys = private.public_key().public_bytes_raw()
            return cls(name, private, TEXT.write("ssh-mldsa44-ed25519") + STRING.write(keys))
        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return cls(name, private, parse_line(line.decode())[0].blob)

    @property
    def public(self) -> PublicKey:
        return PublicKey.parse_any(self.blob)

    @property
    def type(self) -> str:
        return TEXT.read(Reader(self.blob))

    def sign(self, data: bytes, algorithm: str = "rsa-sha2-512") -> bytes:
        """A signature in ssh's form; `algorithm` is for RSA."""
        match self.private:
            case ed25519.Ed25519PrivateKey():
                return TEXT.write("ssh-ed25519") + STRING.write(self.private.sign(data))
            case composite.PrivateKey():
                return TEXT.write("ssh-mldsa44-ed25519") + STRING.write(self.private.sign(data))
            case ec.EllipticCurvePrivateKey(key_size=size):
                kind = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}[size]()
                numbers = decode_dss_signature(self.private.sign(data, ec.ECDSA(kind)))
                made = b"".join(map(MPINT.write, numbers))
                return TEXT.write(f"ecdsa-sha2-nistp{size}") + STRING.write(made)
            case rsa.RSAPrivateKey():
                kinds = {"rsa-sha2-512": hashes.SHA512, "rsa-sha2-256": hashes.SHA256}
                kind = kinds.get(algorithm, hashes.SHA1)()
                made = self.private.sign(data, padding.PKCS1v15(), kind)
                return TEXT.write(algorithm) + STRING.write(made)

    def certified(
        self,
        authority: Key,
        *principals: str,
        role: int = HOST,
        after: int = 0,
        before: int = FOREVER,
        critical: bytes = b"",
        algorithm: str = "rsa-sha2-512",
    ) -> Key:
        """The same key with a certificate for its blob."""
        fields = Reader(self.blob)
        kind = TEXT.read(fields)
        body = b"".join(
            (
                TEXT.write(certificate_type(kind)),
                STRING.write(b"nonce"),
                fields.rest(),
                UINT64.write(7),
                UINT32.write(role),
                TEXT.write("an id"),
                STRING.write(repeated(TEXT).write(principals)),
                UINT64.write(after),
                UINT64.write(before),
                STRING.write(critical),
                STRING.write(b""),
                STRING.write(b""),
                STRING.write(authority.blob),
            )
        )
        return replace(self, blob=body + STRING.write(authority.sign(body, algorithm)))

    def named(self) -> NamedPrivateKey:
        """An Ed25519 key as it is added to an agent."""
        assert isinstance(self.private, ed25519.Ed25519PrivateKey)
        seed = self.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        point = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return NamedPrivateKey("ssh-ed25519", Ed25519PrivateKey(point, seed + point))


def new(name: str) -> Key:
    return Key.of(name, ed25519.Ed25519PrivateKey.generate())


A, C, D = new("a"), new("c"), new("d")
B = Key.of("b", ec.generate_private_key(ec.SECP256R1()))
AUTHORITY, STRANGER = new("authority"), new("stranger")
CERTIFIED = D.certified(AUTHORITY, "x", "d")
POST_QUANTUM = Key.of("pq", composite.PrivateKey.from_seeds(os.urandom(64)))
# What OpenSSH had once, or will have: nobody here can tell whether its signature is good.
UNKNOWN = replace(new("u"), blob=TEXT.write("ssh-future") + STRING.write(b"point"))
USERS_KEY, SECOND = new("key"), new("second")


def hop(
    target: Key,
    *,
    origin: Key | None = None,
    user: str = "",
    by: Key | None = None,
    origin_by: Key | None = None,
) -> PermittedHop:
    """From this machine or from `origin`; a host has its name and key, or an authority's key."""

    def at(host: Key, user: str, authority: Key | None) -> Hop:
        known = HostKey((authority or host).public, authority is not None)
        return Hop(user, host.name, keys=(known,))

    here = Hop("", "")
    return PermittedHop(at(origin, "", origin_by) if origin else here, at(target, user, by))
