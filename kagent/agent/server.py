"""Accepts clients of this user, a task each; ends with the keeper."""

from __future__ import annotations

import errno
import os
import socket

import trio

from .. import log
from ..custody.rings import Rings
from ..custody.store import Store
from .connection import Connection
from .lock import Lock
from .peer import Peer
from .requests import Requests
from .settings import Settings
from .signers import Signers
from .signing import Signing
from .workers import Workers


async def serve(
    rings: Rings,
    listener: socket.socket,
    control: socket.socket,
    signing: socket.socket,
    settings: Settings,
) -> None:
    """Serve on `listener` until the keeper, at the other end of `control`, is gone.

    Sign workers wait at the other end of `signing`.
    """
    for own in (listener, control, signing):
        own.setblocking(False)
    store, workers = Store(rings), Workers(control, signing)
    async with trio.open_nursery() as nursery:
        signatures = Signing(store, workers, Signers(), nursery, settings)
        requests = Requests(store, workers, signatures, Lock(store))
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
        peer = Peer.of(client)
        if _permitted(peer):
            client.setblocking(False)
            nursery.start_soon(Connection(peer, requests).serve)
        else:
            client.close()


def _permitted(peer: Peer) -> bool:
    """Whether the peer is this user or root, as ssh-agent demands."""
    if peer.uid in (0, os.getuid()):
        return True
    log.warning(f"uid mismatch: process {peer.process.pid} of uid {peer.uid} was turned away")
    return False
