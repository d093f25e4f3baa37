"""Command lines as OpenSSH's programs take them."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence
from typing import NoReturn

# What Python's getopt says of an error, and getopt_long(3) of OpenBSD.
_ERRORS = {
    "requires argument": "option requires an argument",
    "must not have an argument": "option doesn't take an argument",
    "not a unique prefix": "ambiguous option",
}


def parse(
    arguments: list[str], letters: str, usage: str, words: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], list[str]]:
    """getopt(3) without permutation: (option, value) pairs, and what follows.

    `words` are long options, with "=" where they take a value.  An unknown option ends the
    program with `usage` and exit code 1; --help does so with 0.
    """
    try:
        given, rest = getopt.getopt(arguments, letters, [*words, "help"])
    except getopt.GetoptError as error:
        texts = (text for ending, text in _ERRORS.items() if error.msg.endswith(ending))
        fail(f"{next(texts, 'unknown option')} -- {error.opt}\n{usage}", end="")
    if ("--help", "") in given:
        sys.stdout.write(usage)
        sys.exit(0)
    return given, rest


def one_of(names: Sequence[str]) -> str:
    """'a, b or c', of two or more."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def fail(text: str, code: int = 1, end: str = "\n") -> NoReturn:
    """Say why on standard error, and exit."""
    sys.stderr.write(text + end)
    sys.exit(code)
