"""Command lines as OpenSSH's programs take them."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence
from typing import NoReturn


def parse(
    arguments: list[str], letters: str, usage: str, long: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], list[str]]:
    """getopt(3) without permutation: (option, value) pairs, and what follows.

    An unknown option ends the program with `usage` and exit code 1.
    """
    try:
        return getopt.getopt(arguments, letters, long)
    except getopt.GetoptError as error:
        missing = "requires argument" in error.msg
        what = "option requires an argument" if missing else "unknown option"
        fail(f"{what} -- {error.opt}\n{usage}", end="")


def fail(text: str, code: int = 1, end: str = "\n") -> NoReturn:
    """Say why on standard error, and exit."""
    sys.stderr.write(text + end)
    sys.exit(code)
