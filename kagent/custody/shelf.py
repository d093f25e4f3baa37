"""Byte strings by identity, in memory that the keeper writes and some of its children read.

What ends with the agent needs no kernel key, of which a user may have few.  It lies in a memfd(2),
which only those have that are given its descriptor: nothing of it is in the memory of any other.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from .identity import DESCRIPTION_LENGTH

# Where the content is now.
_HEADER = struct.Struct("=QQQI")  # number of the change, offset, length, checksum
# An identity's description, and how long its bytes are.
_ENTRY = struct.Struct(f"={DESCRIPTION_LENGTH}sI")
_TRIES = 1000

# linux/memfd.h: what isn't to be executed.  Without it sysctl vm.memfd_noexec can forbid the file.
_MFD_NOEXEC_SEAL = 0x0008

# Of its writing, only what is mapped by then goes on, whoever opens the file anew: fcntl(2), since
# Linux 5.1.  And it keeps its size, or who has a mapping would be ended.
_F_SEAL_FUTURE_WRITE = 0x0010
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL

# Bytes of which none counts before it is used: for some ten thousand identities.
_SIZE = 1 << 24
_LEAST_SIZE = 1 << 20  # what RLIMIT_FSIZE must leave of it


class _Header(NamedTuple):
    number: int
    offset: int
    length: int
    checksum: int


class Shelf:
    """A mapping from an identity's description to bytes, to be read.

    Readers see a change whole or not at all, and wait for nobody: new content is written beside the
    old, and then the header is.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # With the number of the change that they are of; at once, for the sake of threads.
        self._seen: tuple[int, Mapping[str, bytes]] = 0, {}

    def fileno(self) -> int:
        """Its descriptor."""
        return self._descriptor

    def entries(self) -> Mapping[str, bytes]:
        """All that is there now; for any thread.  Raises OSError."""
        seen, entries = self._seen
        for _ in range(_TRIES):
            header = self._header()
            if header.number == seen:
                return entries
            content = self._content(header)
            # The old content is wiped once the header has changed; and the writer may have been
            # stopped in the middle of any of it.
            if zlib.crc32(content) == header.checksum and header == self._header():
                entries = _parse(content)
                self._seen = header.number, entries
                return entries
        raise OSError("what is held changes all the time")

    def __bool__(self) -> bool:
        """Whether anything is there."""
        return self._header().length > 0

    def _header(self) -> _Header:
        return _Header(*_HEADER.unpack(os.pread(self._descriptor, _HEADER.size, 0)))

    def _content(self, header: _Header) -> bytes:
        return os.pread(self._descriptor, header.length, header.offset)


class OwnShelf(Shelf):
    """One to write to; `reader` is the same by a descriptor that can't be written to.

    The content isn't kept in the writer's memory: so its children, which inherit that, don't have
    what they aren't given a descriptor of.  It is written by a mapping, which they don't inherit:
    write(2) could be made to fail by who lowers RLIMIT_FSIZE, as any process of the user can with
    prlimit(2), and then what is to be removed would stay.

    And nobody else can write to it, though who has the reader may open it anew for that, in
    /proc/self/fd: the file is sealed once it is mapped.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        super().__init__(_memory_file())
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        if most != resource.RLIM_INFINITY and most < _LEAST_SIZE:
            raise OSError(f"a file may have {most} bytes only: `ulimit -f {_LEAST_SIZE >> 10}`")
        self._size = _SIZE if most == resource.RLIM_INFINITY else min(_SIZE, most)
        # One half is read while the other is written.
        self._half = (self._size - _HEADER.size) // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        os.ftruncate(self._descriptor, self._size)
        self._memory = mmap.mmap(self._descriptor, self._size)
        self._memory.madvise(mmap.MADV_DONTFORK)
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
        path = f"/proc/self/fd/{self._descriptor}"
        self.reader = Shelf(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def __contains__(self, description: str) -> bool:
        """Whether something is there of that identity."""
        return description in self._read()

    def __getitem__(self, description: str) -> bytes:
        """What is there of that identity.  Raises KeyError."""
        return self._read()[description]

    def put(self, description: str, content: bytes) -> None:
        """Have `content` there, in the place of what is there of that identity.

        Raises OSError, with nothing changed, if there is no room.
        """
        packed = _packed({**self._read(), description: content})
        self._make_room(len(packed))
        self._publish(packed)

    def remove(self, description: str) -> None:
        """Have nothing there of that identity."""
        entries = self._read()
        if entries.pop(description, None) is not None:
            self._publish(_packed(entries))

    def clear(self) -> None:
        """Have nothing there."""
        if self:
            self._publish(b"")

    def _read(self) -> dict[str, bytes]:
        return _parse(self._content(self._header()))

    def _make_room(self, length: int) -> None:
        """Have memory for so much, and in both halves, so that a removal needs none.

        A process that writes to a mapping where there is none left is ended.
        """
        if length > self._half:
            raise OSError(errno.ENOSPC, "there is no room for so many keys")
        for start in (_HEADER.size, _HEADER.size + self._half):
            os.posix_fallocate(self._descriptor, start, length)

    def _publish(self, content: bytes) -> None:
        number, start, length, _ = self._header()
        offset = _HEADER.size if start > _HEADER.size else _HEADER.size + self._half
        self._memory[offset : offset + len(content)] = content
        header = _Header(number + 1, offset, len(content), zlib.crc32(content))
        self._memory[: _HEADER.size] = _HEADER.pack(*header)
        self._memory[start : start + length] = bytes(length)


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("kagent", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel before 6.3
            raise
        return os.memfd_create("kagent", flags)


def _packed(entries: dict[str, bytes]) -> bytes:
    parts: list[bytes] = []
    for description, content in entries.items():
        parts += (_ENTRY.pack(description.encode(), len(content)), content)
    return b"".join(parts)


def _parse(content: bytes) -> dict[str, bytes]:
    entries, at = {}, 0
    while at < len(content):
        description, length = _ENTRY.unpack_from(content, at)
        at += _ENTRY.size + length
        entries[description.decode()] = content[at - length : at]
    return entries
