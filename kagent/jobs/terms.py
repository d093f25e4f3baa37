"""What an agent was told of keys when it was started, and what of a client's wishes it can keep."""

from __future__ import annotations

from typing import NamedTuple

from ..custody import clock
from ..custody.device import Providers
from ..custody.identity import Custody
from ..protocol.constraints import (
    AssociatedCertificates,
    Confirm,
    ConfirmForwarded,
    Constraint,
    IdleLifetime,
    Lifetime,
    RequireCustody,
    RestrictDestination,
    SkProvider,
)
from ..protocol.refusals import Cause, Explained

# A sign worker that has had a key has ended by then, in nanoseconds.  As short as pays: a worker
# costs some milliseconds of a processor, which are few beside this, and of less there are more.
BURST = 100 * clock.MILLISECOND

# What is kept, by whom: lifetimes by the keeper, and all by the front at each request.
# A token's provider is kept with its key.
_KEPT = (Lifetime, IdleLifetime, Confirm, ConfirmForwarded, RestrictDestination)


class NotKept(Explained):
    """A key is asked to be held in a way that isn't possible; the text says which."""


class Terms(NamedTuple):
    """Holds for every key of kagent's own; what a key is sent with can only be stricter."""

    custody: Custody | None = None  # the only one that is allowed
    lifetime: int = 0  # seconds, for keys that come without one; 0: no end
    providers: Providers = Providers()
    burst: int = BURST  # nanoseconds, at most BURST; 0: a process for each signature
    behind: tuple[str, ...] = ()  # the sockets of the agents behind, absolute

    def constraints(
        self, asked: tuple[Constraint, ...], *, of_token: bool = False
    ) -> tuple[Constraint, ...]:
        """What a key is to be held under; `of_token`: the keys of a PKCS#11 token.

        Raises NotKept.
        """
        besides = AssociatedCertificates if of_token else SkProvider
        for one in asked:
            if not isinstance(one, (*_KEPT, RequireCustody, besides)):
                raise NotKept(Cause.CONSTRAINT, f"{type(one).__name__} is not for this type of key")
            if isinstance(one, Lifetime | IdleLifetime) and one.seconds == 0:
                # For the kernel, 0 would mean no end.
                raise NotKept(Cause.LIFETIME, "a lifetime of no seconds")
        kept = tuple(one for one in asked if isinstance(one, _KEPT))
        if self.lifetime and not any(isinstance(one, Lifetime) for one in kept):
            return (Lifetime(self.lifetime), *kept)
        return kept

    def custody_for(self, asked: tuple[Constraint, ...]) -> Custody | None:
        """The only custody that a key may have, if there is just one.  Raises NotKept."""
        wanted = {Custody(one.custody) for one in asked if isinstance(one, RequireCustody)}
        allowed = wanted | ({self.custody} - {None})
        if len(allowed) > 1:
            raise NotKept(Cause.CUSTODY, f"kagent was started with --custody {self.custody}")
        return next(iter(allowed), None)
