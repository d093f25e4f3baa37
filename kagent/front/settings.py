"""What the front was told when the agent was started."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..custody.device import WebSafety


@dataclass(frozen=True)
class Settings:
    """What the front shows, what it lets FIDO keys sign, and when it is idle."""

    fingerprint_hash: str = "sha256"
    web_safety: WebSafety = field(default_factory=WebSafety)
    idle_exit: int = 0  # seconds without a client after which the agent ends; 0: never
