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
    content, about = _read(path, LARGEST)
    if about.st_uid not in (0, os.getuid()):
        raise ValueError("it is another user's")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"others can write to it: chmod go-w {path}")
    return content.decode()


def read_private(path: str | Path, largest: int) -> bytes:
    """The content of a private key file, which others may not read if it is this user's: as ssh-add
    has it.

    Whatever there is at that path must not hold anybody up.  Raises OSError, and ValueError for
    what is no such file, or has more than `largest` bytes.
    """
    content, about = _read(path, largest)
    if about.st_uid == os.getuid() and about.st_mode & 0o077:
        raise ValueError(f"others can read it: chmod go= {path}")
    return content


def _read(path: str | Path, largest: int) -> tuple[bytes, os.stat_result]:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a file")
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"longer than {largest} bytes")
    return content, about
