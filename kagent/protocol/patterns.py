# Patterns as ssh_config(5) has them under PATTERNS, matched as OpenSSH's match.c does.
#
# Text and pattern may both come from a client.  So no regular expression is made of a pattern: one
# star is tried at a time, which takes no more than length times length however many there are.
"""Wildcard patterns, and lists of them."""

from __future__ import annotations


def matches(text: str, pattern: str) -> bool:
    """Whether the whole of `text` fits: `*` is anything, `?` one byte of its UTF-8."""
    text, pattern = _bytewise(text), _bytewise(pattern)
    at = wanted = 0
    star = taken = -1  # the last star met, and where what it doesn't take begins
    while at < len(text):
        if pattern.startswith("*", wanted):
            star, taken = wanted, at
            wanted += 1
        elif wanted < len(pattern) and pattern[wanted] in ("?", text[at]):
            wanted += 1
            at += 1
        elif star >= 0:
            # An earlier star need not be tried again: what lies between is best found early.
            taken += 1
            wanted, at = star + 1, taken
        else:
            return False
    return not pattern[wanted:].strip("*")


def _bytewise(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def matches_list(text: str, patterns: str) -> bool:
    """Whether `text` fits one of `patterns`, separated by commas, and none that begins with `!`."""
    positive = False
    for pattern in patterns.removesuffix(",").split(",") if patterns else ():
        if matches(text, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            positive = True
    return positive
