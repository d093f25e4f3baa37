"""Files that say what kagent is to do: read as they are, or not at all."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from typing import BinaryIO

LARGEST = 2**20  # bytes


class TooOpen(ValueError):
    """Others may do with a file what only its owner may; says what mends it."""


def read_own(path: str | os.PathLike[str]) -> str:
    """The text of a file that only root and this user can write.

    Raises OSError, and ValueError for what is no such file.
    """
    with open(open_own(path), "rb") as file:
        return _content(file, LARGEST).decode()


def open_own(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """The descriptor of a file that only root and this user can write; made for this user alone.

    Whatever there is at that path must not hold anybody up.  Raises OSError, and ValueError for
    what is no such file.
    """
    descriptor = _open(path, flags)
    try:
        about = os.fstat(descriptor)
        if about.st_uid not in (0, os.getuid()):
            raise ValueError("it is another user's")
        by_group = about.st_mode & stat.S_IWGRP and not (
            _is_private(about.st_gid) and not _has_acl(descriptor)
        )
        if by_group or about.st_mode & stat.S_IWOTH:
            raise ValueError(f"others can write to it: chmod go-w {path}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_private(path: str | os.PathLike[str], largest: int) -> bytes:
    """The content of a private key file, which others may not read if it is this user's: as ssh-add
    has it.

    Whatever there is at that path must not hold anybody up.  Raises OSError, TooOpen, and
    ValueError for what is no such file, or has more than `largest` bytes.
    """
    with open(_open(path, os.O_RDONLY), "rb") as file:
        about = os.fstat(file.fileno())
        if about.st_uid == os.getuid() and about.st_mode & 0o077:
            raise TooOpen(f"others can read it: chmod go= {path}")
        return _content(file, largest)


def _open(path: str | os.PathLike[str], flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise ValueError("not a file")


def _is_private(gid: int) -> bool:
    """Whether a group is this user's alone, as many systems make one for each: then files are
    mostly made writable to it.  As OpenSSH of Debian has it.
    """
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.getuid())
        # Those whose first group it is aren't among its members.
        others = {one.pw_uid for one in pwd.getpwall() if one.pw_gid == gid} - {user.pw_uid}
    except (KeyError, OSError):
        return False
    members = set(group.gr_mem) - {user.pw_name}
    return (gid, group.gr_name) == (user.pw_gid, user.pw_name) and not members | others


def _has_acl(descriptor: int) -> bool:
    """Whether users or groups are named that may more than all others.  acl(5)

    Then the file's mode tells what the most is that any of them may, and not what its group may.
    """
    try:
        return bool(os.getxattr(descriptor, "system.posix_acl_access"))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)


def _content(file: BinaryIO, largest: int) -> bytes:
    content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"longer than {largest} bytes")
    return content
