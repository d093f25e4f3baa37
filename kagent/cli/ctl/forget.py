"""Destroys the keys that kagent holds in your user keyring, without asking it, as kagent.socket
does when your systemd ends: after your last logout, or never before a reboot if you linger."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from ...custody.rings import ANCHOR, Place, destroy_in
from ...keyctl import USER_KEYRING, KernelKeyError, Keyring


def run() -> int:
    """Destroy what kagent --keyring user has anchored; the exit code."""
    user, faults = Keyring.special(USER_KEYRING), []
    for anchor in _anchors(user):
        with suppress(KernelKeyError):
            anchor.set_permissions(ANCHOR)
        faults += destroy_in(anchor)
        user.unlink(anchor)
    for fault in faults:
        sys.stderr.write(f"kagentctl: {fault}\n")
    return int(bool(faults))


def _anchors(user: Keyring) -> Iterator[Keyring]:
    """Also one whose permissions somebody has changed, so that no agent takes it for its own."""
    for key, about in user.described():
        ours = about.uid == os.getuid() and about.type == "keyring"
        if ours and about.description == Place.USER.anchor_name:
            yield Keyring(key.serial)
