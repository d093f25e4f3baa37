"""What keeper and front share outside the kernel's keys."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent.custody.identity import description_of
from kagent.custody.shelf import OwnShelf, Shelf

NAMES = [description_of(bytes([number])) for number in range(4)]
CHANGES = st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.binary(max_size=300))))


def used(shelf: Shelf) -> bytes:
    """Its file, but for what has no memory yet."""
    end, parts = 0, list[bytes]()
    with suppress(OSError):  # nothing behind
        while True:
            start = os.lseek(shelf.fileno(), end, os.SEEK_DATA)
            end = os.lseek(shelf.fileno(), start, os.SEEK_HOLE)
            parts.append(os.pread(shelf.fileno(), end - start, start))
    return b"".join(parts)


@given(CHANGES)
def test_a_reader_sees_what_is_there_and_nothing_else_is_left(
    changes: list[tuple[str, bytes | None]],
) -> None:
    shelf, expected = OwnShelf(), dict[str, bytes]()
    for number, (name, content) in enumerate(changes):
        if content is None:
            shelf.remove(name)
            expected.pop(name, None)
        else:
            # That it can be told from the others.
            expected[name] = b"content %d " % number + content
            shelf.put(name, expected[name])
        assert shelf.reader.entries() == expected
        assert bool(shelf) == bool(shelf.reader) == bool(expected)
        assert {one: shelf[one] for one in NAMES if one in shelf} == expected
        raw = used(shelf)
        assert raw.count(b"content ") == sum(one.count(b"content ") for one in expected.values())
    shelf.clear()
    assert not shelf.reader.entries()


def test_who_has_the_reader_can_not_write() -> None:
    """Nor by another descriptor of the same file, which the kernel gives to who has one."""
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(shelf.reader.fileno(), b"other", 0)
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(shelf.reader.fileno(), 0)
    size = os.fstat(shelf.fileno()).st_size
    again = os.open(f"/proc/self/fd/{shelf.reader.fileno()}", os.O_RDWR)
    attempts: list[Callable[[], object]] = [
        lambda: os.pwrite(again, b"other", 0),
        lambda: mmap.mmap(again, size),
        lambda: os.ftruncate(again, 0),
        lambda: os.ftruncate(again, size + 1),
        lambda: fcntl.fcntl(again, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="not permitted"):
            attempt()
    os.close(again)
    shelf.put(NAMES[1], b"more")
    assert shelf.reader.entries() == {NAMES[0]: b"content", NAMES[1]: b"more"}


def test_a_reader_never_sees_half_a_change() -> None:
    """In another process, while it is written to all the time."""
    shelf = OwnShelf()
    reader = os.fork()
    if reader == 0:
        seen, end = set[int](), time.monotonic() + 30
        while len(seen) < 4 and time.monotonic() < end:
            for content in Shelf(shelf.reader.fileno()).entries().values():
                if set(content) != {len(content) % 251}:
                    os._exit(1)
                seen.add(len(content))
        os._exit(0 if len(seen) == 4 else 2)
    while os.waitid(os.P_PID, reader, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        for length in (1, 40_000, 7, 90_000):
            shelf.put(NAMES[0], bytes([length % 251]) * length)
    assert os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) == 0


def test_what_is_half_written_is_not_there() -> None:
    """Whoever stops the writer in the middle: it is read again, and not believed."""
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    at = shelf._memory.find(b"content")
    shelf._memory[at : at + 1] = b"C"
    with pytest.raises(OSError, match="changes"):
        Shelf(shelf.reader.fileno()).entries()
    shelf._memory[at : at + 1] = b"c"
    assert Shelf(shelf.reader.fileno()).entries() == {NAMES[0]: b"content"}


def test_what_does_not_fit_changes_nothing() -> None:
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    with pytest.raises(OSError, match="no room"):
        shelf.put(NAMES[0], bytes(1 << 23))
    assert shelf.reader.entries() == {NAMES[0]: b"content"}


def test_no_limit_of_files_keeps_what_is_to_go() -> None:
    """Who runs as the same user can lower it, of the process that writes."""
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        shelf.put(NAMES[1], b"other")
        shelf.remove(NAMES[0])
        assert shelf.reader.entries() == {NAMES[1]: b"other"}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("hard", "held"),
    [((1 << 20) - 1, 0), (1 << 20, 1 << 19), (1 << 22, 1 << 21), (1 << 25, 1 << 23)],
)
def test_it_is_as_large_as_files_may_be(hard: int, held: int) -> None:
    """One half holds something while the other is written; with too little there is none."""
    largest = held - 14 - 57 - 4  # half of the header, an identity's description, and its length
    OwnShelf().put(NAMES[0], b"")  # contrib/mutate doesn't see what only a child reaches
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            try:
                shelf = OwnShelf()
            except OSError:
                os._exit(2)
            shelf.put(NAMES[0], b"content")
            with suppress(OSError):
                shelf.put(NAMES[0], bytes(largest + 1))
                os._exit(3)
            shelf.put(NAMES[0], bytes(largest))
            shelf.put(NAMES[0], bytes(largest))
            os._exit(len(shelf.reader.entries()[NAMES[0]]) != largest)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if held else 2)


def test_too_little_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 1000))
    with pytest.raises(OSError, match="may have 1000 bytes only: `ulimit -f 1024`"):
        OwnShelf()


@pytest.mark.parametrize(("error", "made"), [(errno.EINVAL, True), (errno.EMFILE, False)])
def test_a_kernel_that_makes_no_file_that_is_never_executed(
    monkeypatch: pytest.MonkeyPatch, error: int, made: bool
) -> None:
    """It gets another where the kernel doesn't know of such, and for no other reason."""
    whole = os.memfd_create

    def create(name: str, flags: int) -> int:
        if flags & 8:  # MFD_NOEXEC_SEAL
            raise OSError(error, os.strerror(error))
        return whole(name, flags)

    monkeypatch.setattr(os, "memfd_create", create)
    if made:
        shelf = OwnShelf()
        shelf.put(NAMES[0], b"content")
        assert shelf.reader.entries() == {NAMES[0]: b"content"}
    else:
        with pytest.raises(OSError, match=os.strerror(error)):
            OwnShelf()


def test_no_program_that_is_started_has_it() -> None:
    shelf = OwnShelf()
    assert not os.get_inheritable(shelf.fileno())
    assert not os.get_inheritable(shelf.reader.fileno())


def test_a_removal_needs_no_memory() -> None:
    """Where there is none, it would end the writer."""
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    shelf.put(NAMES[1], bytes(40_000))
    used = os.fstat(shelf.fileno()).st_blocks
    shelf.remove(NAMES[0])
    assert os.fstat(shelf.fileno()).st_blocks == used


def test_a_fork_has_nothing_of_it() -> None:
    """But by a descriptor that it is given."""
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    maps = Path("/proc/self/maps")

    def mapped() -> int:
        return maps.read_text().count("/memfd:kagent")

    here, child = mapped(), os.fork()
    if child == 0:
        os._exit(mapped())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 < here
