"""Stops kagent and removes the units that install has written.  Your key files were only read."""

from __future__ import annotations

from ..options import fail
from .units import AUTOLOAD, SERVICE, SOCKET, NoSystemd, systemctl, unit_folder


def run() -> int:
    """Undo what install did; the exit code."""
    folder = unit_folder()
    names = [name for name in (AUTOLOAD, SOCKET, SERVICE) if (folder / name).exists()]
    if not names:
        print("kagent wasn't installed for this user")
        return 0
    try:
        systemctl("disable", "--now", *names)
        for name in names:
            (folder / name).unlink()
            print(f"stopped, disabled and removed {folder / name}")
        systemctl("daemon-reload")
    except (NoSystemd, OSError) as error:
        fail(f"kagentctl: {error}")
    print("its keys are gone; SSH_AUTH_SOCK is not set any more for what systemd starts")
    return 0
