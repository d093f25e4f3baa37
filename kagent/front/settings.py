"""What the front was told when the agent was started."""

from __future__ import annotations

from typing import NamedTuple

from ..custody.device import WebSafety
from ..protocol.constraints import Constraint


class Settings(NamedTuple):
    """What the front shows, what it lets FIDO keys sign, when it is idle, and who is behind it."""

    fingerprint_hash: str = "sha256"
    web_safety: WebSafety = WebSafety()
    idle_exit: int = 0  # seconds without a client after which the agent ends; 0: never
    behind: tuple[str, ...] = ()  # the sockets of the agents behind
    confirm_behind: tuple[Constraint, ...] = ()  # under which their keys are used
