"""crowd SOCKET KIND COUNT: so many processes that each keep the agent busy in that way."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from .tools import argument, goes_on, ready, tell

_ADD, _UNLOCK, _EXTENSION = 17, 23, 27
_BIND = b"session-bind@openssh.com"
_LARGE = 250_000  # more than a socket takes in before anybody reads


def _connect() -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    while True:
        with suppress(BlockingIOError):
            stream.connect(sys.argv[1])
            return stream


def _frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def header() -> None:
    """Five bytes of a key, and no more."""
    stream = _connect()
    stream.sendall(struct.pack(">IB", 300, _ADD))
    stream.recv(1)


def large() -> None:
    """As much of a long key as the socket takes, and no more."""
    stream = _connect()
    stream.setblocking(False)
    stream.sendall(struct.pack(">IB", _LARGE, _ADD))
    with suppress(BlockingIOError):
        for _ in range(_LARGE // 1000 - 50):
            stream.send(bytes(1000))
    stream.setblocking(True)
    stream.recv(1)


def trickle() -> None:
    """A key, a byte at a time."""
    stream = _connect()
    stream.sendall(struct.pack(">IB", _LARGE, _ADD))
    while True:
        stream.sendall(b"x")
        time.sleep(0.05)


def out_of_band() -> None:
    """All of a key, whose last byte no read gives that doesn't ask for it: send(2), MSG_OOB."""
    stream = _connect()
    frame = _frame(_ADD, bytes(300))
    stream.sendall(frame[:-1])
    stream.send(frame[-1:], socket.MSG_OOB)
    stream.recv(1)


def bad_keys() -> None:
    """Keys that are none, one after the other."""
    _flood(_frame(_ADD, _text(b"ssh-ed25519") + bytes(200)))


def bad_binds() -> None:
    """Hosts' proofs that are none."""
    _flood(_frame(_EXTENSION, _text(_BIND) + _text(bytes(50)) + _text(bytes(32)) * 2 + b"\1"))


def guesses() -> None:
    """Passphrases."""
    _flood(_frame(_UNLOCK, _text(b"wrong")))


def _flood(frame: bytes) -> None:
    while True:
        with _connect() as stream:
            stream.sendall(frame)
            stream.recv(5)


KINDS: dict[str, Callable[[], None]] = {
    "header": header,
    "large": large,
    "trickle": trickle,
    "out of band": out_of_band,
    "bad keys": bad_keys,
    "bad binds": bad_binds,
    "guesses": guesses,
}


def main() -> None:
    act = KINDS[sys.argv[2]]
    pids = []
    for _ in range(argument(3)):
        pid = os.fork()
        if pid == 0:
            while True:
                with suppress(OSError):
                    act()
        pids.append(pid)
    ready()
    while goes_on():
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    tell(len(pids), [])


if __name__ == "__main__":
    main()
