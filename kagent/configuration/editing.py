"""Changes to the user's kagent.toml, which leave all else in it as it stands."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..files import read_own
from .toml import files, statements

# What an [[identity]] says because its key has a source.
_OF_SOURCES = {
    *("file", "credential", "command", "passphrase"),
    *("lifetime", "idle", "confirm", "forwarded"),
}


_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class NoHome(Exception):
    """The user has no place for a file."""


def own_file() -> str:
    """Where it is, or is to be.  Raises NoHome."""
    _, *own = files()
    if not own:
        raise NoHome("there is no home for ~/.config/kagent/kagent.toml: HOME is not set")
    return own[0]


def change(edit: Callable[[str], str]) -> None:
    """Have it be what `edit` makes of it; all of that or nothing.

    It is read as kagent reads it.  Raises NoHome; OSError, and ValueError for one that kagent
    doesn't take, or that can't be written as TOML has it.  What `edit` raises is passed on, and
    nothing has changed.
    """
    path = os.path.realpath(own_file())  # a link stays one
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with _locked(os.path.dirname(path)):
        content, mode = "", 0o600
        try:
            content, mode = read_own(path), os.stat(path).st_mode & 0o777
        except FileNotFoundError:
            pass
        changed = edit(content).encode()
        descriptor, new = tempfile.mkstemp(prefix=".kagent.toml-", dir=os.path.dirname(path))
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(changed)
                file.flush()
                os.fsync(descriptor)
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Two who change it at once do so one after the other."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def with_identity(content: str, values: dict[str, str]) -> str:
    """With an [[identity]] of those texts behind all else."""
    lines = ["[[identity]]", *(f"{name} = {_quoted(value)}" for name, value in values.items())]
    before = content if not content or content.endswith("\n") else content + "\n"
    return before + ("\n" if before else "") + "\n".join(lines) + "\n"


def without_source(content: str, line: int) -> str:
    """With no source in the [[identity]] that begins there; without all of it if it says no more.

    Comments stay.
    """
    lines = content.splitlines(keepends=True)
    table: list[tuple[int, int, str]] = []
    inside = False
    for first, last, told in statements(content):
        if lines[first - 1].lstrip().startswith("["):
            inside = first == line
        elif inside:
            table.append((first, last, next(iter(told))))
    others = {name for _, _, name in table} - _OF_SOURCES - {"public"}
    spans = [(first, last) for first, last, name in table if others and name in _OF_SOURCES]
    if not others:
        spans = [(line, line), *((first, last) for first, last, _ in table)]
        if line > 1 and not lines[line - 2].strip():
            spans.append((line - 1, line - 1))
    gone = {number for first, last in spans for number in range(first, last + 1)}
    left = "".join(one for number, one in enumerate(lines, 1) if number not in gone)
    return left.lstrip("\r\n") if line == 1 else left


def _quoted(text: str) -> str:
    """A basic string, as toml.io has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _CONTROLS.sub(lambda one: f"\\u{ord(one[0]):04x}", escaped) + '"'
