"""What kagent.toml says of keys, as far as the front has to know it."""

from __future__ import annotations

import os

from ..configuration.identities import Entry, Identities
from ..jobs.jobs import Rule


def rules() -> tuple[tuple[Rule, ...], str]:
    """Of single keys, and of whose use the user is told otherwise."""
    read = Identities.read()
    return tuple(_rule(one) for one in read.entries if one.certificate or one.notify), read.notify


def _rule(entry: Entry) -> Rule:
    program = os.path.basename(entry.certificate[0]) if entry.certificate else ""
    renew_before = min(entry.renew_before, 2**32)
    return Rule(entry.public.plain_blob, program, renew_before, entry.notify)
