"""Who wants much is in nobody's way."""

from __future__ import annotations

from kagent.front.turns import Row


def test_a_row_has_one_of_each_in_turn() -> None:
    row: Row[str] = Row()
    for pid, one in ((1, "a"), (1, "b"), (1, "c"), (2, "x"), (3, "gone"), (2, "y")):
        row.add(pid, one)
    row.remove(3, "gone")
    taken = []
    while row:
        first = row.first()
        assert row.take() is first
        taken.append(first)
    assert taken == ["a", "x", "b", "y", "c"]
