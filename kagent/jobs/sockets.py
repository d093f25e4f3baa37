"""The sockets between keeper and front."""

from __future__ import annotations

import socket
from typing import NamedTuple


class Sockets(NamedTuple):
    """One side of the front's three sockets: for jobs, for signatures, and to the lookout."""

    control: socket.socket
    signing: socket.socket
    looking: socket.socket

    def close(self) -> None:
        """Close all three."""
        for one in self:
            one.close()
