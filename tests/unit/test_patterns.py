"""Patterns, against what ssh makes of them in its configuration."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent.protocol.patterns import matches, matches_list


@pytest.mark.parametrize("text", ["host", "host.example.org", "a", "ab"])
def test_a_list_is_what_ssh_takes_it_for(text: str, tmp_path: Path) -> None:
    lists = [
        "*",
        "host",
        "h?st",
        "*.org",
        "!host,*",
        "*,!*.org",
        "!x",
        "a*",
        "?",
        "??,",
        ",a",
        "hos",
        "hostx",
        "*host",
        "a*a",
    ]
    config = "".join(
        f"Match originalhost {patterns}\n  SendEnv fits{number}\n"
        for number, patterns in enumerate(lists)
    )
    (tmp_path / "config").write_text(config)
    command = ["ssh", "-G", "-F", tmp_path / "config", text]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    theirs = {int(number) for number in re.findall(r"fits(\d+)", told)}
    assert {n for n, patterns in enumerate(lists) if matches_list(text, patterns)} == theirs


def test_an_empty_list_has_no_pattern() -> None:
    """Nor has it one behind the last comma."""
    assert not matches_list("", "")
    assert not matches_list("", "a,")
    assert matches_list("", ",")


def test_a_question_mark_is_one_byte_whatever_it_stands_for() -> None:
    """What a client sends need not be UTF-8."""
    for text in (b"\xff", "\u00e9".encode()):
        for marks in range(4):
            fits = matches(text.decode("utf-8", "surrogateescape"), "?" * marks)
            assert fits == (marks == len(text))


@given(st.text("ab*\n", max_size=8), st.text("ab*?\n", max_size=8))
def test_a_pattern_is_a_regular_expression(text: str, pattern: str) -> None:
    meaning = {"*": ".*", "?": "."}
    expression = "".join(meaning.get(c, re.escape(c)) for c in pattern)
    assert matches(text, pattern) == bool(re.fullmatch(expression, text, re.DOTALL))


def test_many_stars_take_no_time() -> None:
    assert not matches("a" * 300, "*a" * 100_000 + "b")
    assert not matches("ab" * 150, "*a*b" * 70 + "c")
