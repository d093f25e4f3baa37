"""What was learned of hosts: the file that says which key of the user's has logged in to which.

A line for each host and key: the fingerprints of both, and the last day, in UTC.  Whoever may write
the file decides what ssh is offered first, and nothing else.

It is written in place, and not by renaming another: who may rename a file may put it anywhere in
the user's home, and who writes this is to be able to do nothing else.  Each line is as long as any
other and true by itself, so whoever reads meanwhile, or finds what a dead writer has left, loses
one line at most.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from .files import open_own

MOST = 1000  # lines; of more, the oldest go
_LARGEST = 2**18  # bytes
_LINE = re.compile(
    r"(SHA256:[A-Za-z0-9+/]{43}) (SHA256:[A-Za-z0-9+/]{43}) ([0-9]{4}-[0-9]{2}-[0-9]{2})"
)
_SECONDS_TO_LOCK = 2.0
_MOMENT = 0.02


class Learned(NamedTuple):
    """A login: the host's and the user's key, by fingerprint, and the last day, as 2026-11-26."""

    host: str
    key: str
    day: str


class Unusable(Exception):
    """The file can't be read or written; says why."""


def path() -> str:
    """Where it is.  Raises Unusable for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME") or ""
    if not state.startswith("/"):
        state = os.path.expanduser("~/.local/state")
    if not state.startswith("/"):
        raise Unusable("there is no home to keep it in")
    return f"{state}/kagent/hosts"


def today() -> str:
    """As in a line."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def read(host: str = "") -> list[Learned]:
    """What the file says, of all hosts or of one; nothing if there is none.  Raises Unusable."""
    try:
        with File() as file:
            return file.lines(host)
    except FileNotFoundError:
        return []


def with_login(lines: Iterable[Learned], login: Learned) -> list[Learned]:
    """The same lines, each where it was, and this one."""
    changed = list(lines)
    for at, line in enumerate(changed):
        if line[:2] == login[:2]:
            changed[at] = login
            return changed
    if len(changed) < MOST:
        return [*changed, login]
    oldest = min(range(len(changed)), key=lambda at: changed[at].day)
    changed[oldest] = login
    return changed


class File:
    """It, open.  No link is followed to it."""

    def __init__(self, *, to_write: bool = False) -> None:
        """With `to_write` it is made if it isn't there.  Raises FileNotFoundError, Unusable."""
        self.path = path()
        flags = os.O_RDONLY
        try:
            if to_write:
                os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT
            self._descriptor = open_own(self.path, flags | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def lines(self, host: str = "") -> list[Learned]:
        """What it says, of all hosts or of one.  Raises Unusable."""
        return _parsed(self._content(), host)

    def change(self, changed: Callable[[list[Learned]], list[Learned]]) -> None:
        """Have it say what `changed` makes of what it says, and nothing else but such lines.

        Raises Unusable.
        """
        try:
            self._lock()
            before = self._content()
            lines = [" ".join(line) for line in changed(_parsed(before))]
            if not all(map(_LINE.fullmatch, lines)):
                raise ValueError("what is to be written there says nothing of a login")
            after = "".join(f"{line}\n" for line in lines).encode()
            if after != before:
                if os.pwrite(self._descriptor, after, 0) < len(after):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.ftruncate(self._descriptor, len(after))
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error
        finally:
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _content(self) -> bytes:
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            return os.read(self._descriptor, _LARGEST)
        except OSError as error:
            raise self._unusable(error) from error

    def _lock(self) -> None:
        """Whoever has locked it, it is not waited for long."""
        until = time.monotonic() + _SECONDS_TO_LOCK
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TimeoutError(errno.EAGAIN, "another process has locked it") from None
                time.sleep(_MOMENT)

    def _unusable(self, error: OSError | ValueError) -> Unusable:
        return Unusable(f"{self.path}: {getattr(error, 'strerror', None) or error}")


def _parsed(content: bytes, host: str = "") -> list[Learned]:
    """What is no such line says nothing."""
    lines = content.decode("ascii", "replace").split("\n")
    found = (_LINE.fullmatch(line) for line in lines if line.startswith(host))
    return [Learned(*line.groups()) for line in found if line][:MOST]
