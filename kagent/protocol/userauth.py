# What a client wants to have signed, as far as the data itself shows: a login (RFC 4252 section 7,
# and PROTOCOL for publickey-hostbound-v00@openssh.com), or a signed message (PROTOCOL.sshsig).
#
# A signature that is meant for one may not serve as the other, so only the exact form counts.
"""Logins and signed messages, recognised in what is to be signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .publickey import PublicKey
from .wire import BYTE, STRING, TEXT, ProtocolError, Reader

_USERAUTH_REQUEST = 50  # RFC 4252 section 6
_SERVICE = "ssh-connection"
_PLAIN = "publickey"
_HOSTBOUND = "publickey-hostbound-v00@openssh.com"
_SSHSIG = b"SSHSIG"
_CERTIFIED_RSA = ("rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com")
# Signature algorithm -> the type of key that makes it, where the names differ (RFC 8332).
_KEY_TYPES = {
    "rsa-sha2-256": "ssh-rsa",
    "rsa-sha2-512": "ssh-rsa",
    **dict.fromkeys(_CERTIFIED_RSA, "ssh-rsa-cert-v01@openssh.com"),
}


@dataclass(frozen=True)
class Login:
    """A login as `user`; `host_key` is the blob of the host that it is bound to, if it is."""

    session_id: bytes
    user: str
    host_key: bytes | None


@dataclass(frozen=True)
class SignedMessage:
    """A message signed by ssh-keygen -Y, for use in `namespace` only."""

    namespace: str


ToBeSigned: TypeAlias = Login | SignedMessage


def recognise(data: bytes, blob: bytes) -> ToBeSigned | None:
    """What `data` is, to be signed with the key or certificate `blob`; None for anything else."""
    for read in (_read_signed_message, _read_login):
        try:
            reader = Reader(data)
            found = read(reader, blob)
            reader.expect_end()
        except ProtocolError:
            continue
        return found
    return None


def _read_login(reader: Reader, blob: bytes) -> Login:
    session_id = STRING.read(reader)
    number = BYTE.read(reader)
    user, service, method = (TEXT.read(reader) for _ in range(3))
    signed, algorithm, key = BYTE.read(reader), TEXT.read(reader), STRING.read(reader)
    fits = _KEY_TYPES.get(algorithm, algorithm) == PublicKey.parse(blob).type and key == blob
    if not session_id or number != _USERAUTH_REQUEST or service != _SERVICE or signed != 1:
        raise ProtocolError("no login")
    if not fits or method not in (_PLAIN, _HOSTBOUND):
        raise ProtocolError("no login with this key")
    host_key = STRING.read(reader) if method == _HOSTBOUND else None
    if host_key is not None:
        PublicKey.parse(host_key)
    return Login(session_id, user, host_key)


def _read_signed_message(reader: Reader, blob: bytes) -> SignedMessage:
    if reader.take(len(_SSHSIG)) != _SSHSIG:
        raise ProtocolError("no signed message")
    namespace = TEXT.read(reader)
    for _ in ("reserved", "hash algorithm", "hash"):
        STRING.read(reader)
    return SignedMessage(namespace)
