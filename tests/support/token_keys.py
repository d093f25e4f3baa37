"""Key files that no program here makes: those of FIDO tokens."""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kagent.protocol.privatekey import (
    PRIVATE_KEY,
    NamedPrivateKey,
    SkEcdsaPrivateKey,
    SkEd25519PrivateKey,
)
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import STRING, TEXT, UINT32


def sk_ed25519(application: str = "ssh:") -> NamedPrivateKey:
    """A key as a token makes one; no token has its private half."""
    point = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key = SkEd25519PrivateKey(point, application, 1, os.urandom(64), b"")
    return NamedPrivateKey("sk-ssh-ed25519@openssh.com", key)


def sk_ecdsa(application: str = "ssh:") -> NamedPrivateKey:
    """As sk_ed25519."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key = SkEcdsaPrivateKey("nistp256", point, application, 1, os.urandom(64), b"")
    return NamedPrivateKey("sk-ecdsa-sha2-nistp256@openssh.com", key)


def openssh_file(key: NamedPrivateKey, comment: str) -> str:
    """An unencrypted private key file (PROTOCOL.key)."""
    check = os.urandom(4)
    private = check + check + PRIVATE_KEY.write(key) + TEXT.write(comment)
    private += bytes(range(1, -len(private) % 8 + 1))
    data = b"openssh-key-v1\0" + TEXT.write("none") * 2 + STRING.write(b"") + UINT32.write(1)
    data += STRING.write(key.public_blob) + STRING.write(private)
    body = base64.encodebytes(data).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}-----END OPENSSH PRIVATE KEY-----\n"


def public_line(key: NamedPrivateKey, comment: str) -> str:
    """The public half, as a .pub file has it."""
    return f"{PublicKey.parse(key.public_blob).line()} {comment}\n"
