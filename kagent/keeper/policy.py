"""What an agent was told of keys when it was started."""

from __future__ import annotations

from dataclasses import dataclass

from ..custody.identity import Custody


@dataclass(frozen=True)
class Policy:
    """Holds for every key; what a key is sent with can only be stricter."""

    custody: Custody | None = None  # the only one that is allowed
