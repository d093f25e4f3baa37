"""Telling the user that keys were used: a desktop notification, by a program that sends one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from .. import programs
from ..jobs.jobs import Done, Refused
from ..jobs.questions import Notice, Used
from ..text import shown
from . import commands

_SECONDS = 5.0
_LONGEST = 4096  # bytes that they may print; nobody reads them

# Each takes what it is to tell as it is, and not as text of a language of its own.
_SENDERS = {
    "notify-send": ("--app-name=kagent", "--"),
    "busctl": (
        *("--user", "--timeout=4", "--", "call", "org.freedesktop.Notifications"),
        *("/org/freedesktop/Notifications", "org.freedesktop.Notifications"),
        *("Notify", "susssasa{sv}i", "kagent", "0", ""),
    ),
}
_BEHIND = {"notify-send": (), "busctl": ("0", "0", "-1")}


def tell(notice: Notice) -> Done | Refused:
    """The job of telling, which takes some seconds at most."""
    found = sender()
    if not found:
        return Refused(f"no program sends notifications: install {' or '.join(_SENDERS)}")
    address = bus()
    if not address:
        return Refused("there is no session bus: DBUS_SESSION_BUS_ADDRESS isn't set")
    words = [found, *_SENDERS[found], *worded(notice), *_BEHIND[found]]
    try:
        commands.output(words, _SECONDS, _LONGEST, DBUS_SESSION_BUS_ADDRESS=address)
    except programs.NoOutput as error:
        return Refused(f"{error}: no desktop may be there that shows notifications")
    return Done()


def sender() -> str:
    """The program that sends a notification; "" if there is none."""
    return next((name for name in _SENDERS if shutil.which(name)), "")


def bus() -> str:
    """The address of the session bus; "" if there is none.  dbus-daemon(1), pam_systemd(8)."""
    if address := os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    path = f"/run/user/{os.getuid()}/bus"
    return f"unix:path={path}" if os.path.exists(path) else ""


def worded(notice: Notice) -> tuple[str, str]:
    """A heading and the text.  Nothing in it that others chose can make a line, or be markup."""
    total = sum(one.count for one in notice.used) + notice.more
    if total == 1:
        [one] = notice.used
        return f"Signature with {shown(one.key)}", "\n".join(_parts(one))
    lines = [f"{one.count} with {shown(one.key)}: {', '.join(_parts(one))}" for one in notice.used]
    if notice.more:
        lines.append(f"and {notice.more} more: see kagentctl log")
    return f"{total} signatures", "\n".join(lines)


def _parts(used: Used) -> Iterator[str]:
    if used.by:
        yield f"by {shown(used.by)}"
    if used.host:
        yield f"for {shown(used.host)}"
    if used.forwarded:
        yield "FORWARDED"
