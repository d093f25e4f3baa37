"""Destroys the keys that kagent holds in your user keyring, without asking it, as kagent.socket
does when your systemd ends: after your last logout, or never before a reboot if you linger."""

from __future__ import annotations

import sys

from ...custody.rings import Place, destroy_in, own_keyring
from ...keyctl import USER_KEYRING, Keyring


def run() -> int:
    """Destroy what kagent --keyring user has anchored; the exit code."""
    user = Keyring.special(USER_KEYRING)
    anchor = own_keyring(Place.USER.anchor_name, user)
    if anchor is None:
        return 0
    faults = destroy_in(anchor)
    user.unlink(anchor)
    for fault in faults:
        sys.stderr.write(f"kagentctl: {fault}\n")
    return int(bool(faults))
