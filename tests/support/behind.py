"""An agent to be behind kagent, which answers as it is told: well, or not at all."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh

from kagent.protocol.messages import (
    IdentitiesAnswer,
    ListedKey,
    Message,
    RequestIdentities,
    SignRequest,
    SignResponse,
    decode,
    encode,
)
from tests.support.frames import FAILURE
from tests.support.programs import SECONDS, Person

# Gives the frame that is answered; or answers itself, and gives nothing.
Answer = Callable[[Message, socket.socket], bytes]


class AsyncsshAgent:
    """The protocol of kagent's; keys and signatures are asyncssh's."""

    def __init__(self, *files: Path) -> None:
        self.keys = [asyncssh.read_private_key(file) for file in files]

    def __call__(self, message: Message, _: socket.socket) -> bytes:
        if isinstance(message, RequestIdentities):
            listed = [ListedKey(one.public_data, one.get_comment()) for one in self.keys]
            return encode(IdentitiesAnswer(tuple(listed)))
        if isinstance(message, SignRequest):
            for key in self.keys:
                if key.public_data == message.blob:
                    name = {2: b"rsa-sha2-256", 4: b"rsa-sha2-512"}.get(message.flags)
                    signature = key.sign(message.data, name or key.sig_algorithms[-1])
                    return encode(SignResponse(signature))
        return FAILURE


@contextmanager
def scripted(person: Person, name: str, answer: Answer) -> Iterator[Path]:
    """The socket of such an agent, as long as the block runs."""
    path = person.home / name
    over = threading.Event()
    streams: list[socket.socket] = []

    def serve(stream: socket.socket) -> None:
        with stream, stream.makefile("rb") as frames, suppress(OSError):
            while header := frames.read(4):
                message = decode(frames.read(int.from_bytes(header, "big")))
                if answered := answer(message, stream):
                    stream.sendall(answered)

    def accept() -> None:
        with suppress(OSError):
            while not over.is_set():
                stream, _ = listener.accept()
                streams.append(stream)
                threading.Thread(target=serve, args=(stream,), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.chown(path, person.uid, person.gid)
        listener.listen()
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield path
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for stream in streams:
                with suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
            accepting.join(SECONDS)
            path.unlink()
