"""The agent's socket: where it is by default, who may open it, and how old ones are cleaned up.

Paths and modes are those of OpenSSH 10.6; what they begin with is as in 10.1, so that `ssh-agent
-u` and `kagent -u` each clean up after both.
"""

from __future__ import annotations

import errno
import os
import pwd
import signal
import socket
import stat
import time
from contextlib import suppress

from .. import log

# The signals that end an agent, and take the socket away.
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

# The directory of the sockets, in the user's home.
USUAL = ".ssh/agent"

_BACKLOG = 128
_FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_MOST_WAITING = 4096  # as many as systemd, and the kernel by itself, let wait: listen(2)
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_STALE_AFTER = 3600.0  # seconds; a younger socket may be about to be listened on


def _letters(data: bytes) -> str:
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in data)


def _host_mark() -> str:
    # A home directory may be shared between machines; each cleans up its own sockets.
    import hashlib

    return _letters(hashlib.sha512(os.uname().nodename.encode()).digest()[:10])


class NoPlace(Exception):
    """There can be no socket where it should be; says where that is, and why."""


def home_directory() -> str:
    """The user's, which the socket is made under by default.  Raises NoPlace."""
    home = os.environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError as error:
            told = f"HOME is not set, and there is no user of uid {os.getuid()}"
            raise NoPlace(f"no home for the agent's socket: {told}") from error
    return home


def turn_away_waiting(descriptor: int = _FIRST_PASSED) -> None:
    """Have those who wait at systemd's socket know that nobody comes.

    They would wait on, and systemd start kagent anew, over and over.
    """
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.setblocking(False)
        for _ in range(_MOST_WAITING):  # who comes over and over would never let this end
            listening.accept()[0].close()


class Listener:
    """A listening socket that only this user can open, and its path."""

    def __init__(
        self, path: str, directory: str | None = None, lent: socket.socket | None = None
    ) -> None:
        """Listen at `path`; `directory` was made for it and goes with it.  Raises OSError.

        A socket that is `lent` listens there already; it and its path stay when kagent ends.
        """
        self.path = path
        self.lent = lent is not None
        self._file = os.path.abspath(path)  # an agent in the background leaves its folder
        self._directory = directory
        self.socket = lent or _listen(path)
        self._inode = None if lent else _inode(self._file)

    @classmethod
    def of_user(cls, directory: str = USUAL) -> Listener:
        """At s.HOST.local.PID.RANDOM in a directory of the user's own, which is made if it isn't
        there; relative to the user's home.

        Raises NoPlace.
        """
        directory = os.path.join(home_directory(), directory)
        _make(directory)
        while True:
            name = f"s.{_host_mark()}.local.{os.getpid()}.{_letters(os.urandom(10))}"
            path = os.path.join(directory, name)
            try:
                return cls(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    # Of a path that is too long Python has no number.
                    why = error.strerror or str(error)
                    raise NoPlace(f"cannot bind to {path}: {why}") from error

    @classmethod
    def shared(cls, base: str) -> Listener:
        """In a new directory in one that others write to as well.  Raises OSError."""
        directory = f"{base}/ssh-{_letters(os.urandom(12))}"
        os.mkdir(directory, 0o700)
        return cls(f"{directory}/agent.local.{os.getpid()}", directory)

    @classmethod
    def from_systemd(cls) -> Listener | None:
        """The socket of a kagent.socket that this process was started for: sd_listen_fds(3).

        None if it wasn't.  Raises OSError if what was passed isn't one listening socket.
        """
        pid, count = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
        os.environ.pop("LISTEN_FDNAMES", None)
        if pid != str(os.getpid()):
            return None
        if count != "1":
            raise OSError(errno.EINVAL, f"systemd passed {count} sockets, not one")
        given = socket.socket(fileno=_FIRST_PASSED)
        given.set_inheritable(False)
        listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if (given.family, given.type) != (socket.AF_UNIX, socket.SOCK_STREAM) or not listens:
            raise OSError(errno.EINVAL, "systemd passed no listening unix socket")
        return cls(given.getsockname(), lent=given)

    def remove(self) -> None:
        """Take the path away again, if it is there and ours: not what somebody has made since."""
        if self.lent:
            return
        try:
            if _inode(self._file) != self._inode:
                return
            os.unlink(self._file)
            if self._directory is not None:
                os.rmdir(self._directory)
        except OSError as error:
            log.debug(f"cleaning up: {error}")


def _inode(path: str) -> tuple[int, int]:
    """Which file that is.  Raises OSError."""
    about = os.lstat(path)
    return about.st_dev, about.st_ino


def _make(directory: str) -> None:
    """Make a directory for the user alone, and those that it is in.  Raises NoPlace."""
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    if parent not in ("", directory):
        _make(parent)
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:
        if not os.path.isdir(directory):  # another kagent may have made it meanwhile
            raise NoPlace(f"cannot make {directory}: {error.strerror}") from error


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    finally:
        os.umask(mask)
    return listener


def remove_stale(directory: str = USUAL, *, of_all_hosts: bool = False) -> None:
    """Remove sockets that nobody listens on any more, in a directory as for Listener.of_user."""
    mark = "" if of_all_hosts else f"s.{_host_mark()}."
    try:
        entries = list(os.scandir(os.path.join(home_directory(), directory)))
    except (NoPlace, OSError):
        return
    for entry in entries:
        try:
            about = entry.stat(follow_symlinks=False)
            old = about.st_mtime < time.time() - _STALE_AFTER
            if stat.S_ISSOCK(about.st_mode) and old and entry.name.startswith(mark):
                _remove_unless_answered(entry.path)
        except OSError as error:
            log.debug(f"{entry.path}: {error}")


def _remove_unless_answered(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) in (errno.ECONNREFUSED, errno.ENOENT):
            os.unlink(path)
