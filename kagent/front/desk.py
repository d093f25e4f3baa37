"""What every request is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..custody.store import Store
from .certificates import Certificates
from .channels import Workers
from .configured import Fetching
from .holding import Holding
from .hosts import Hosts
from .lock import AgentLock
from .notices import Notices
from .settings import Settings
from .sign_workers import SignWorkers
from .sources import Sources
from .tally import Tally
from .threads import Signers
from .turns import Turns

if TYPE_CHECKING:
    from .behind import Behind


class Desk(NamedTuple):
    """One for a front's whole life."""

    store: Store
    lock: AgentLock
    workers: Workers
    sign_workers: SignWorkers
    fetching: Fetching
    hosts: Hosts
    signers: Signers
    settings: Settings
    tally: Tally
    certificates: Certificates
    notices: Notices
    behind: Behind | None  # with --behind only
    holding: Holding
    sources: Sources
    scanning: Turns  # who looks at what others have put into the keyrings, which may be much
