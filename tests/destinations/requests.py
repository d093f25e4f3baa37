"""What is asked of an agent, as frames."""

from __future__ import annotations

import hashlib

from kagent.protocol.constraints import PermittedHop, RestrictDestination
from kagent.protocol.messages import (
    SESSION_BIND,
    AddIdConstrained,
    AddIdentity,
    Extension,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SessionBind,
    SignRequest,
    encode,
)
from kagent.protocol.wire import BYTE, STRING, TEXT

from .keys import USERS_KEY, Key

PLAIN = "publickey"
HOST_BOUND = "publickey-hostbound-v00@openssh.com"

LIST = encode(RequestIdentities())
REMOVE_ALL = encode(RemoveAllIdentities())


def add(*hops: PermittedHop, key: Key = USERS_KEY) -> bytes:
    """Without hops: a key that may be used everywhere."""
    if not hops:
        return encode(AddIdentity(key.named(), key.name))
    return encode(AddIdConstrained(key.named(), key.name, (RestrictDestination(hops),)))


def remove(key: Key = USERS_KEY) -> bytes:
    return encode(RemoveIdentity(key.blob))


def session_of(host: Key, number: int = 0) -> bytes:
    """The id of one of the sessions with a host."""
    return hashlib.sha256(f"{host.name} {number}".encode()).digest()


def bind(
    host: Key,
    number: int = 0,
    *,
    session: bytes | None = None,
    signature: bytes | None = None,
    forwarding: bool = False,
    more: bytes = b"",
) -> bytes:
    """The session with a host, for a login."""
    session = session_of(host, number) if session is None else session
    signature = host.sign(session) if signature is None else signature
    contents = SessionBind(host.blob, session, signature, forwarding)
    return encode(Extension(SESSION_BIND, contents.write() + more))


def forward(host: Key) -> bytes:
    """The session with a host that may use the agent."""
    return bind(host, forwarding=True)


def login(
    host: Key,
    number: int = 0,
    *,
    session: bytes | None = None,
    message: int = 50,
    user: str = "root",
    service: str = "ssh-connection",
    method: str = HOST_BOUND,
    with_signature: int = 1,
    algorithm: str | None = None,
    key: Key = USERS_KEY,
    to: Key | None = None,
    more: bytes = b"",
) -> bytes:
    """What is signed to log in at `host`; `to` is named in place of it in the host-bound form."""
    return b"".join(
        (
            STRING.write(session_of(host, number) if session is None else session),
            BYTE.write(message),
            TEXT.write(user),
            TEXT.write(service),
            TEXT.write(method),
            BYTE.write(with_signature),
            TEXT.write(algorithm or key.type),
            STRING.write(key.blob),
            STRING.write((to or host).blob) if method == HOST_BOUND else b"",
            more,
        )
    )


SSHSIG = b"SSHSIG" + b"".join(map(STRING.write, (b"git", b"", b"sha512", bytes(64))))


def sign(data: bytes, key: Key = USERS_KEY) -> bytes:
    return encode(SignRequest(key.blob, data, 0))
