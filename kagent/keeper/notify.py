"""sd_notify(3), for a unit of Type=notify."""

from __future__ import annotations

import os
import socket

from .. import log


def notify(state: str) -> None:
    """Tell systemd, if it asks for that with $NOTIFY_SOCKET."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            stream.sendto(state.encode(), path)
    except OSError as error:
        log.warning(f"systemd can't be told {state}: {error}")
