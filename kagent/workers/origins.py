"""What the configuration says of a key that has a source, as the agent has it of any key."""

from __future__ import annotations

from ..configuration.identities import Entry, Identities
from ..protocol.constraints import Confirm, ConfirmForwarded, Constraint, IdleLifetime, Lifetime


def source_of(blob: bytes, identities: Identities) -> Entry | None:
    """The entry that says where the key with that public half, or that certificate, comes from."""
    found = (one for one in identities.entries if one.has_source and one.public.blob == blob)
    return next(found, None)


def constraints_of(entry: Entry) -> tuple[Constraint, ...]:
    """What the key of that entry is held under."""
    wanted = (
        Lifetime(entry.lifetime) if entry.lifetime else None,
        Confirm() if entry.confirm == "always" else None,
        ConfirmForwarded() if entry.confirm == "forwarded" else None,
        IdleLifetime(entry.idle) if entry.idle else None,
    )
    return tuple(one for one in wanted if one is not None)


def place_of(entry: Entry) -> str:
    """Where its key comes from, in the words of every listing: 'file PATH'."""
    if entry.command:
        return f"command {entry.command[0]}"
    return f"credential {entry.credential}" if entry.credential else f"file {entry.file}"
