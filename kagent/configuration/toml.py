"""The files, and where in them what is wrong stands."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..files import read_own

SYSTEM_FILE = "/etc/kagent/kagent.toml"
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Fault(NamedTuple):
    """What is wrong with a file, and in which of its lines; 0 if in none."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.file}{line}: {self.what}"


class File(NamedTuple):
    """A file that was read: `told` is what it says, and `content` how."""

    path: str
    content: str
    told: dict[str, Any]

    def fault(self, what: str, word: str, table: tuple[str, int] | None = None) -> Fault:
        """One of what stands at `word`, in the array of tables of that name and number if any.

        With "" as `word`, of the table itself.
        """
        return Fault(self.path, _lines(self.content).get((table, word), 0), what)


def files() -> tuple[str, ...]:
    """The machine's, and this user's own unless the user has no home."""
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return (SYSTEM_FILE, f"{own}/kagent/kagent.toml") if own.startswith("/") else (SYSTEM_FILE,)


def read(path: str) -> File | Fault | None:
    """The file, why it can't be read, or None if there is none."""
    try:
        content = read_own(path)
        import tomllib  # who has no such file starts without it

        return File(path, content, tomllib.loads(content))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        what = getattr(error, "strerror", None) or str(error)
    place = _PLACE.search(what)
    line = int(place[1] or content.count("\n") + 1) if place else 0
    return Fault(path, line, _PLACE.sub("", what))


def unknown(name: str, words: tuple[str, ...]) -> str:
    """What to say of a word that isn't one of those."""
    from difflib import get_close_matches

    near = get_close_matches(name, words, 1)
    told = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(words))}"
    return f"unknown word {name!r}; {told}"


def _lines(content: str) -> dict[tuple[tuple[str, int] | None, str], int]:
    """Where each word of the first level and of arrays of tables stands, counted from 1."""
    found: dict[tuple[tuple[str, int] | None, str], int] = {}
    table: tuple[str, int] | None = None
    for number, told in _statements(content):
        for name, value in told.items():
            if isinstance(value, list) and value == [{}]:
                before = sum(1 for one, word in found if one and one[0] == name and not word)
                table = (name, before)
                found[table, ""] = number
            else:
                found.setdefault((table, name), number)
    return found


def _statements(content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each statement alone, as the table that it would be, and the line in which it begins."""
    import tomllib

    first, text = 1, ""
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        text += line
        try:
            told = tomllib.loads(text)
        except ValueError:
            continue  # it goes on in the next line
        if told:
            yield first, told
        first, text = number + 1, ""
