"""Accepts clients of this user, a task each; ends with the keeper."""

from __future__ import annotations

import errno
import math
import os
import signal
import socket

import trio

from .. import log
from ..custody.rings import Rings
from ..custody.store import Store
from ..jobs.sockets import Sockets
from .certificates import Certificates
from .channels import Workers
from .configured import Fetching
from .connection import Connection
from .desk import Desk
from .holding import Holding
from .hosts import Hosts
from .lock import AgentLock
from .notices import Notices
from .peer import Peer, Refusal
from .requests import Requests
from .settings import Settings
from .sign_workers import SignWorkers
from .signatures import Signing
from .sources import Sources
from .tally import Tally
from .threads import Signers
from .turns import Turns

_MOMENT = 0.1  # seconds
_MOST_SCANS, _MOST_SCANS_EACH = 2, 1  # at once; more would wait for each other


async def serve(
    rings: Rings,
    listener: socket.socket,
    sockets: Sockets,
    settings: Settings,
    tally: Tally,
    most_clients: int,
) -> bool:
    """Serve on `listener` until the keeper, at the other end of `sockets`, is gone.

    True if it ends because it is idle.
    """
    listener.setblocking(False)
    store = Store(rings)
    for fault in store.tidy():
        log.error(fault)
    for identity in store.identities():  # of a front before this one
        tally.refusals.holds(identity)
    idle = False
    async with trio.open_nursery() as serving, trio.open_nursery() as clients:
        workers, sign_workers = Workers(sockets), SignWorkers(sockets.signing)
        fetching, hosts = Fetching(workers), Hosts(workers)
        signers = Signers(lambda: len(clients.child_tasks) == 1)
        behind = None
        if settings.behind:
            from .behind import Behind  # who has started kagent so has imported it

            behind = Behind(workers, settings)
        certificates = Certificates(workers, fetching, tally, serving)
        notices = Notices(workers, fetching)
        lock = AgentLock(store)
        holding = Holding(store, workers, lock, tally.refusals)
        desk = Desk(
            store,
            lock,
            workers,
            sign_workers,
            fetching,
            hosts,
            signers,
            settings,
            tally,
            certificates,
            notices,
            behind,
            holding,
            Sources(workers, holding),
            Turns(_MOST_SCANS, _MOST_SCANS_EACH),
        )
        requests = Requests(desk, Signing(desk))

        async def end_with_keeper() -> None:
            await trio.lowlevel.wait_readable(sockets.control)  # it never writes: this is its end
            serving.cancel_scope.cancel()

        async def remove_when_told() -> None:
            with trio.open_signal_receiver(signal.SIGUSR1) as told:
                async for _ in told:
                    try:
                        await requests.remove_all(even_if_locked=True)
                    except (Refusal, OSError) as error:
                        log.error(f"SIGUSR1: {error}")

        serving.start_soon(end_with_keeper)
        serving.start_soon(sign_workers.take_in)
        serving.start_soon(hosts.learn)
        serving.start_soon(remove_when_told)
        serving.start_soon(notices.tell)
        while not idle:
            with trio.move_on_after(settings.idle_exit or math.inf) as wait:
                await trio.lowlevel.wait_readable(listener)
            if wait.cancelled_caught:
                # Nothing is accepted any more: who connects now is in the queue, which stays with
                # systemd and is the next agent's.
                idle = not (clients.child_tasks or store.ends_with_agent or certificates.has_some)
            else:
                while len(clients.child_tasks) >= most_clients:
                    await trio.sleep(_MOMENT)  # until one goes
                await _accept(listener, requests, clients)
        serving.cancel_scope.cancel()
    return idle


async def _accept(listener: socket.socket, requests: Requests, nursery: trio.Nursery) -> None:
    try:
        client, _ = listener.accept()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            log.warning(f"can't accept a client: {error}")
            await trio.sleep(_MOMENT)  # until one goes
        return
    peer = Peer.of(client)
    if peer.uid in (0, os.getuid()):  # as ssh-agent demands
        client.setblocking(False)
        # Else FIONREAD counts bytes that no read gives, and who waits for them waits long: send(2),
        # MSG_OOB.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        nursery.start_soon(Connection(peer, requests).serve, name="client")
    else:
        requests.turn_away(peer)
        client.close()
