"""Stops kagent and removes the units that install has written.  Your key files were only read.

Where kagent is a package of the system's, its units are all users': they are masked for you, until
you install it again."""

from __future__ import annotations

from ..options import fail
from .units import SOCKET, NoSystemd, own_units, packaged, systemctl


def run() -> int:
    """Undo what install did; the exit code."""
    units = own_units()
    if not units and not packaged():
        print("kagent wasn't installed for this user; what was started by hand ends with kagent -k")
        return 0
    try:
        if units:
            systemctl("disable", "--now", *(unit.name for unit in units))
        for unit in units:
            unit.unlink()
            print(f"stopped, disabled and removed {unit}")
        systemctl("daemon-reload")
        if packaged():
            # First, since what is masked has no commands any more for when it stops.
            systemctl("stop", SOCKET)
            systemctl("mask", SOCKET)
            print(f"stopped and masked {SOCKET}, for you; kagentctl install undoes that")
    except NoSystemd as error:
        there = " ".join(str(unit) for unit in units if unit.exists())
        instead = f"; to remove it without: rm {there}" if there else ""
        fail(f"kagentctl: this user's systemd can't stop kagent: {error}{instead}")
    except OSError as error:
        fail(f"kagentctl: {error}")
    print("its keys are gone; SSH_AUTH_SOCK is not set any more for what systemd starts")
    return 0
