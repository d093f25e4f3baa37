"""Frames of the agent protocol, sent as they are, and their answers."""

from __future__ import annotations

import socket
import struct

from kagent.protocol.messages import (
    EXPLAIN,
    AddIdentity,
    Extension,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Message,
    RequestIdentities,
    Success,
    decode,
    encode,
)
from kagent.protocol.privatekey import NamedPrivateKey, RsaPrivateKey

SUCCESS = encode(Success())
FAILURE = encode(Failure())
LISTING = encode(RequestIdentities())
NOTHING = encode(IdentitiesAnswer(()))
# Too small to be one: it is refused when all of it has come.
A_KEY = encode(AddIdentity(NamedPrivateKey("ssh-rsa", RsaPrivateKey(35, 3, 3, 3, 5, 7)), "small"))


def frame(number: int, *parts: bytes) -> bytes:
    """One with that type, and with that in its body."""
    body = b"".join(parts)
    return struct.pack(">IB", 1 + len(body), number) + body


def ask(stream: socket.socket, frame: bytes) -> bytes:
    """Send a frame and give the answer's; b"" if the agent ended the connection."""
    try:
        stream.sendall(frame)
    except (BrokenPipeError, ConnectionResetError):
        return b""
    return answer(stream)


def answer(stream: socket.socket) -> bytes:
    """One frame, and nothing of the next; b"" if the agent ended the connection."""
    received, length = b"", 4
    while len(received) < length:
        try:
            chunk = stream.recv(length - len(received))
        except ConnectionResetError:
            return b""
        if not chunk:
            return b""
        received += chunk
        if len(received) == 4:
            length += struct.unpack(">I", received)[0]
    return received


def explained(stream: socket.socket) -> str:
    """What a kagent has to say about the last refusal on that connection."""
    message: Message = decode(ask(stream, encode(Extension(EXPLAIN, b"")))[4:])
    assert isinstance(message, ExtensionResponse)
    return message.contents[4:].decode()
