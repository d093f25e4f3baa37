"""Who wants much is in nobody's way."""

from __future__ import annotations

from kagent.front import behind, certificates, configured, requests
from kagent.front.turns import Row
from kagent.keeper import keeper


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


def test_what_the_front_lets_come_the_keeper_takes() -> None:
    """Else who wants much of one thing would have others refused what they want."""
    one = 1  # question to the user, key from a source, login to be learned, notice: one at a time
    loads = requests._MOST_LOADS + requests._MOST_STALLING + requests._MOST_INSERTIONS + one
    assert loads < keeper._MOST_LOADS
    fetching = configured._MOST_OFFERS + configured._MOST_FETCHES + certificates._MOST_COMMANDS
    asking = requests._MOST_BINDS + behind._MOST_LISTS + behind._MOST_SIGNATURES + 3 * one
    assert fetching + asking < keeper._MOST_ERRANDS
