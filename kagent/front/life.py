"""The front's life, from after the fork to its end.

A fork of the keeper and not a program of its own: a program that starts can be attached to by its
user, and runs what that user's Python runs at its start, before it can give up what it possesses.
So all that the front needs is imported here, before there is any key.
"""

from __future__ import annotations

import os
import resource
import socket
import traceback
from typing import NoReturn

import trio

from .. import log
from ..confine import profiles
from ..confine.seccomp import CannotConfine
from ..custody.rings import Rings
from ..jobs.jobs import IDLE, Job, Kind
from ..jobs.sockets import Sockets
from .server import serve
from .settings import Settings
from .tally import Tally

# What those that are connected need to be answered: no client that comes may take it from them.
# Half of what there is, where the user's limit is low.
_SPARE_DESCRIPTORS = 100


def run(settings: Settings, rings: Rings, listener: socket.socket, sockets: Sockets) -> NoReturn:
    """Lose what system calls aren't needed, and serve."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    most_clients = most - min(_SPARE_DESCRIPTORS, most // 2)
    tally = Tally()

    async def serve_confined() -> bool:
        # From here, since what trio needs for its loop is open now, and no thread runs yet.
        profiles.front(*(one.fileno() for one in sockets)).install()
        sockets.control.send(Job(Kind.READY).pack())
        return await serve(rings, listener, sockets, settings, tally, most_clients)

    try:
        os._exit(IDLE if trio.run(serve_confined) else 0)
    except CannotConfine as error:
        log.error(f"the front can't be confined: {error}")
    except Exception as error:
        # No key is in any of its lines, since none is in this process.
        for line in "".join(traceback.format_exception(error)).splitlines():
            log.error(line)
    os._exit(1)
