"""Files that say what kagent is to do: read as they are, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST = 2**20  # bytes


def read_own(path: str | Path) -> str:
    """The text of a file that only root and this user can write.

    Whatever there is at that path must not hold anybody up.  Raises OSError, and ValueError for
    what is no such file.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a file")
        if about.st_uid not in (0, os.getuid()):
            raise ValueError("it is another user's")
        if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"others can write to it: chmod go-w {path}")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"longer than {LARGEST} bytes")
    return content.decode()
