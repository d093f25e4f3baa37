"""Accepts clients of this user, a task each; ends with the keeper."""

from __future__ import annotations

import errno
import os
import socket
import struct

import trio

from .. import log
from ..custody.rings import Rings
from ..custody.store import Store
from .connection import Connection
from .requests import Requests
from .signers import Signers
from .workers import Workers

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid.  unix(7)


async def serve(
    rings: Rings, listener: socket.socket, control: socket.socket, signing: socket.socket
) -> None:
    """Serve on `listener` until the keeper, at the other end of `control`, is gone.

    Sign workers wait at the other end of `signing`.
    """
    for own in (listener, control, signing):
        own.setblocking(False)
    requests = Requests(Store(rings), Workers(control, signing), Signers())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_accept, listener, requests, nursery)
        await trio.lowlevel.wait_readable(control)  # the keeper never writes: this is its end
        nursery.cancel_scope.cancel()


async def _accept(listener: socket.socket, requests: Requests, nursery: trio.Nursery) -> None:
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log.warning(f"can't accept a client: {error}")
                await trio.sleep(0.1)  # until one goes
            continue
        if _permitted(client):
            client.setblocking(False)
            nursery.start_soon(Connection(client, requests).serve)
        else:
            client.close()


def _permitted(client: socket.socket) -> bool:
    """Whether the peer is this user or root, as ssh-agent demands."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid in (0, os.getuid()):
        return True
    log.warning(f"uid mismatch: process {pid} of uid {uid} was turned away")
    return False
