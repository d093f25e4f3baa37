"""What every request is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..custody.store import Store
from .channels import Workers
from .configured import Fetching
from .holding import Holding
from .lock import AgentLock
from .settings import Settings
from .sign_workers import SignWorkers
from .sources import Sources
from .tally import Tally
from .threads import Signers

if TYPE_CHECKING:
    from .behind import Behind


class Desk(NamedTuple):
    """One for a front's whole life."""

    store: Store
    lock: AgentLock
    workers: Workers
    sign_workers: SignWorkers
    fetching: Fetching
    signers: Signers
    settings: Settings
    tally: Tally
    behind: Behind | None  # with --behind only
    holding: Holding
    sources: Sources
