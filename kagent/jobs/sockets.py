"""The sockets between keeper and front, and the pipes that answers go through."""

from __future__ import annotations

import select
import socket
from typing import NamedTuple


class Sockets(NamedTuple):
    """One side of the front's three sockets: for jobs, for sign workers, and to the lookout.

    Sign workers have a socket each, which comes to the front through that one.
    """

    control: socket.socket
    signing: socket.socket
    looking: socket.socket

    def close(self) -> None:
        """Close all three."""
        for one in self:
            one.close()


def given_up(pipe: int) -> bool:
    """Whether nobody waits at the other end of an answer's pipe any more."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))
