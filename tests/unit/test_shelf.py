"""What keeper and front share outside the kernel's keys."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent.custody.identity import description_of
from kagent.custody.shelf import OwnShelf, Shelf

NAMES = [description_of(bytes([number])) for number in range(4)]
CHANGES = st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.binary(max_size=300))))


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
        size = os.fstat(shelf.fileno()).st_size
        raw = os.pread(shelf.fileno(), size, 0)
        assert raw.count(b"content ") == sum(one.count(b"content ") for one in expected.values())
    shelf.clear()
    assert not shelf.reader.entries()


def test_who_has_the_reader_can_not_write() -> None:
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(shelf.reader.fileno(), b"other", 0)
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(shelf.reader.fileno(), 0)


def test_a_reader_never_sees_half_a_change() -> None:
    """In another process, while it is written to all the time."""
    shelf, stop = OwnShelf(), multiprocessing.get_context("fork").Event()

    def write() -> None:
        while not stop.is_set():
            for length in (1, 40_000, 7, 90_000):
                shelf.put(NAMES[0], bytes([length % 251]) * length)

    writer = multiprocessing.get_context("fork").Process(target=write)
    writer.start()
    try:
        seen, end = set[int](), time.monotonic() + 30
        while len(seen) < 4 and time.monotonic() < end:
            for content in Shelf(shelf.reader.fileno()).entries().values():
                assert set(content) == {len(content) % 251}
                seen.add(len(content))
        assert len(seen) == 4
    finally:
        stop.set()
        writer.join()


def test_what_does_not_fit_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = OwnShelf()
    shelf.put(NAMES[0], b"content")
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, offset: len(content) - 1)
    with pytest.raises(OSError, match="no memory"):
        shelf.put(NAMES[0], b"other")
    assert shelf.reader.entries() == {NAMES[0]: b"content"}
