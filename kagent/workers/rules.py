"""What kagent.toml says of keys, as far as the front has to know it."""

from __future__ import annotations

import os

from ..configuration.identities import Entry, Identities
from ..jobs.jobs import Rule


def rules(identities: Identities) -> tuple[Rule, ...]:
    """Of single keys."""
    return tuple(_rule(one) for one in identities.entries if one.certificate or one.notify)


def _rule(entry: Entry) -> Rule:
    program = os.path.basename(entry.certificate[0]) if entry.certificate else ""
    return Rule(entry.public.plain_blob, program, entry.renew_before, entry.notify)
