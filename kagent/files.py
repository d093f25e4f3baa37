"""Files that say what kagent is to do: read as they are, or not at all."""

from __future__ import annotations

import errno
import os
import stat

LARGEST = 2**20  # bytes


def read_own(path: str | os.PathLike[str]) -> str:
    """The text of a file that only root and this user can write.

    Raises OSError, and ValueError for what is no such file.
    """
    with open(open_own(path), "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"longer than {LARGEST} bytes")
    return content.decode()


def open_own(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """The descriptor of a file that only root and this user can write; made for this user alone.

    Whatever there is at that path must not hold anybody up.  Raises OSError, and ValueError for
    what is no such file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        about = os.fstat(descriptor)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a file")
        if about.st_uid not in (0, os.getuid()):
            raise ValueError("it is another user's")
        if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"others can write to it: chmod go-w {path}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
