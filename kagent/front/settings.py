"""What the front was told when the agent was started."""

from __future__ import annotations

from typing import NamedTuple

from ..custody.device import WebSafety


class Settings(NamedTuple):
    """What the front shows, what it lets FIDO keys sign, and when it is idle."""

    fingerprint_hash: str = "sha256"
    web_safety: WebSafety = WebSafety()
    idle_exit: int = 0  # seconds without a client after which the agent ends; 0: never
