"""Desktop notifications (org.freedesktop.Notifications): which program sends one, and where to."""

from __future__ import annotations

import os
import shutil

_SERVICE, _PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"


def notification(heading: str, text: str) -> list[str]:
    """The words of a command that shows it; empty if there is no program for that.

    What heading and text are told may not be markup: some desktops take it for that.
    """
    name = sender()
    return [name, *_SENDERS[name](heading, text)] if name else []


def sender() -> str:
    """The name of the program; "" if there is none."""
    return next((name for name in _SENDERS if shutil.which(name)), "")


def bus() -> str:
    """The address of the session bus; "" if there is none.  dbus-daemon(1), pam_systemd(8)."""
    if address := os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    path = f"/run/user/{os.getuid()}/bus"
    return f"unix:path={path}" if os.path.exists(path) else ""


def _for_busctl(heading: str, text: str) -> tuple[str, ...]:
    call = ("--user", "--timeout=4", "--", "call", _SERVICE, _PATH, _SERVICE, "Notify")
    return (*call, "susssasa{sv}i", "kagent", "0", "", heading, text, "0", "0", "-1")


def _for_notify_send(heading: str, text: str) -> tuple[str, ...]:
    # It takes a backslash for the beginning of something else.
    return "--app-name=kagent", "--", heading, text.replace("\\", "\\\\")


# They take what is to be told as it is, and not in a language of their own, but for that.
_SENDERS = {"busctl": _for_busctl, "notify-send": _for_notify_send}
SENDERS = tuple(_SENDERS)
