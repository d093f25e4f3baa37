"""Telling the user that keys were used: a desktop notification, by a program that sends one."""

from __future__ import annotations

from collections.abc import Iterator

from .. import desktop, programs
from ..jobs.causes import Cause
from ..jobs.jobs import Done, Refused
from ..jobs.questions import Notice, Used
from ..text import shown
from . import commands

_SECONDS = 5.0
_LONGEST = 4096  # bytes that they may print; nobody reads them


def tell(notice: Notice) -> Done | Refused:
    """The job of telling, which takes some seconds at most."""
    words, address = desktop.notification(*worded(notice)), desktop.bus()
    if not words:
        senders = " or ".join(desktop.SENDERS)
        return Refused(Cause.FAULT, f"no program sends notifications: install {senders}")
    if not address:
        return Refused(Cause.FAULT, "there is no session bus: DBUS_SESSION_BUS_ADDRESS isn't set")
    try:
        commands.output(words, _SECONDS, _LONGEST, DBUS_SESSION_BUS_ADDRESS=address)
    except programs.NoOutput as error:
        return Refused(Cause.FAULT, f"{error}: no desktop may be there that shows notifications")
    return Done()


def worded(notice: Notice) -> tuple[str, str]:
    """A heading and the text.  Nothing in it that others chose can make a line, or be markup."""
    total = sum(one.count for one in notice.used) + notice.more
    heading = "1 signature" if total == 1 else f"{total} signatures"
    if len(notice.used) == 1 and not notice.more:
        [one] = notice.used
        return f"{heading} with {shown(one.key)}", "\n".join(_parts(one))
    lines = [" ".join((f"{one.count} with {shown(one.key)}", *_parts(one))) for one in notice.used]
    if notice.more:
        lines.append(f"and {notice.more} more: see kagentctl log")
    return heading, "\n".join(lines)


def _parts(used: Used) -> Iterator[str]:
    if used.forwarded:
        yield "FORWARDED"
    if used.programs:
        yield f"by {' ← '.join(map(shown, used.programs))}"
    if used.hosts:
        yield f"for {' → '.join(map(shown, used.hosts))}"
