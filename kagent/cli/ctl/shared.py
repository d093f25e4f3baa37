"""Lists which user can sign with which key of yours, and which keys others let you sign with.
The first is what the keyrings kagent:from:UID:YOU hold that other users show in /proc/keys."""

from __future__ import annotations

from . import keyrings


def run() -> int:
    """List who has what; the exit code."""
    for receiver, found in keyrings.shares():
        print(f"{receiver} can sign with {keyrings.as_line(found)}")
    for found in keyrings.finder().all():
        if found.giver:
            print(f"{found.giver.name} lets you sign with {keyrings.as_line(found)}")
    return 0
