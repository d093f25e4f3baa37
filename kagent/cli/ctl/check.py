"""Reads the files that say what kagent is to do (kagent.toml and identities, the machine's in
/etc/kagent and yours in ~/.config/kagent), and tells of each what it says or, line by line, what is
wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

from ...configuration import identities, settings, toml
from ...custody.configured import Configuration
from ...custody.configured import files as files_of_lines
from ...text import as_it_came


def run() -> int:
    """Print it; the exit code, 1 if something is wrong with a file."""
    wrong = False
    for is_fault, line in _told():
        wrong = wrong or is_fault
        print(as_it_came(line))
    return int(wrong)


def _told() -> Iterator[tuple[bool, str]]:
    for path in toml.files():
        file = toml.read(path)
        if file is None:
            yield False, f"{path}: not there"
        elif isinstance(file, toml.Fault):
            yield True, str(file)
        else:
            yield from _of_toml(file)
    for one in files_of_lines():
        read = Configuration.read(one)
        for fault in read.faults:
            yield True, fault
        if read.identities and not read.faults:
            yield False, f"{one}: {_identities(len(read.identities))}"


def _of_toml(file: toml.File) -> Iterator[tuple[bool, str]]:
    options, faults = settings.of_file(file)
    entries, _, wrong = identities.of_file(file)
    for fault in sorted((*faults, *wrong), key=lambda one: one.line):
        yield True, str(fault)
    if not faults and not wrong:
        yield False, f"{file.path}: {len(options)} settings, {_identities(len(entries))}"


def _identities(count: int) -> str:
    return f"{count} {'identity' if count == 1 else 'identities'}"
