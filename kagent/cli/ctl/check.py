"""Reads the files that say what kagent is to do (kagent.toml and identities, the machine's in
/etc/kagent and yours in ~/.config/kagent), and tells of each what it says or, line by line, what is
wrong with it.  Warns of files and commands that they name and that aren't there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator

from ...configuration import identities, settings, toml
from ...custody.configured import Configuration
from ...custody.configured import files as files_of_lines
from ...text import as_it_came
from ..agent import why_not_started
from .remember import SYSTEMD_CREDS


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
    if refused := why_not_started():
        yield True, refused
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
    for entry in entries:
        for missing in _missing(entry):
            yield False, f"{entry.place}: warning: {missing}"
    if not faults and not wrong:
        yield False, f"{file.path}: {len(options)} settings, {_identities(len(entries))}"


def _missing(entry: identities.Entry) -> Iterator[str]:
    """What it names and can't be had now."""
    if why := entry.file and _wrong_with(entry.file, is_key=True):
        yield f"file: {entry.file}: {why}"
    if why := entry.credential and _wrong_with(entry.credential):
        yield f"credential: {entry.credential}: {why}"
    sealed = (SYSTEMD_CREDS,) if entry.credential else ()
    named = {
        "credential": (sealed, "/"),
        "command": (entry.command, "/"),
        "passphrase": (entry.passphrase, "/"),
        "certificate": (entry.certificate, os.environ.get("HOME", "/")),
    }
    for word, (words, folder) in named.items():
        if words and not _is_command(words[0], folder):
            yield f"{word}: {words[0]}: no such command"


def _is_command(name: str, folder: str) -> bool:
    """As it is started: a name is looked for in PATH, and a path begins in that folder."""
    return shutil.which(os.path.join(folder, name) if "/" in name else name) is not None


def _wrong_with(path: str, *, is_key: bool = False) -> str:
    """Why it isn't a file that can be taken, a key's as ssh has it; nothing if it is one."""
    try:
        about = os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(about.st_mode):
        return "not a file"
    if not os.access(path, os.R_OK):
        return os.strerror(errno.EACCES)
    if is_key and about.st_uid == os.getuid() and about.st_mode & 0o077:
        return f"others can read it: chmod go= {path}"
    return ""


def _identities(count: int) -> str:
    return f"{count} {'identity' if count == 1 else 'identities'}"
