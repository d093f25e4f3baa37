"""What the files say of identities: where the keys come from, whom they are for, who is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..files import read_own
from ..openssh.times import LONGEST, seconds
from ..protocol.publickey import PublicKey, parse_line
from .toml import Fault, File, files, read, unknown

_MOST = 100  # more don't fit into what an agent may answer
_LONGEST_COMMENT = 1000  # characters; so many have room for each
_WHEN = ("forwarded", "always", "never")
_SOURCES = ("file", "credential", "command")
DEFAULT_RENEWAL = 60  # seconds


@dataclass(frozen=True)
class Entry:
    """An [[identity]].  `place` is its file and line, for messages; times are in seconds, 0: none.

    Where the key comes from is one of `file` (a key file), `credential` (a file of
    systemd-creds(1)) and `command` (which prints it), or none of them: then the entry is about a
    key that is loaded otherwise.  `passphrase` is a command that prints the key's passphrase; "" as
    `confirm` or `notify` is for what isn't said.
    """

    place: str
    public: PublicKey
    comment: str
    file: str = ""
    credential: str = ""
    command: tuple[str, ...] = ()
    passphrase: tuple[str, ...] = ()
    lifetime: int = 0
    idle: int = 0
    forwarded: bool = False  # whether a forwarded connection may have the key fetched
    confirm: str = ""
    hosts: tuple[str, ...] = ()  # patterns, as after Host in ssh_config(5)
    elsewhere: bool = True  # whether it is offered to other hosts too
    certificate: tuple[str, ...] = ()  # a command that prints one
    renew_before: int = DEFAULT_RENEWAL  # the certificate's end
    notify: str = ""

    @property
    def has_source(self) -> bool:
        """Whether it says where the key comes from."""
        return bool(self.file or self.credential or self.command)


@dataclass(frozen=True)
class Identities:
    """What all files say together.  `faults` are what is wrong with them; the rest counts."""

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]
    notify: str = "never"
    learn_hosts: bool = True

    @classmethod
    def read(cls) -> Identities:
        """The user's own count first: of two entries for a key, and of what is said of all keys."""
        entries: dict[bytes, Entry] = {}
        general: dict[str, Any] = {}
        faults: list[Fault] = []
        for path in reversed(files()):
            file = read(path)
            if isinstance(file, Fault):
                faults.append(file)
            elif file:
                of_this, of_all, wrong = of_file(file)
                for entry in of_this:
                    entries.setdefault(entry.public.blob, entry)
                general = of_all | general
                faults += wrong
        return cls(tuple(entries.values())[:_MOST], tuple(faults), **general)


def of_file(file: File) -> tuple[list[Entry], dict[str, Any], list[Fault]]:
    """Its entries, what it says of all keys, and what is wrong with it."""
    general: dict[str, Any] = {}
    read: list[Entry | Fault] = []
    for word, value in file.told.items():
        try:
            if word == "identity":
                read += _entries(file, value)
            elif word in _GENERAL:
                general[word.replace("-", "_")] = _GENERAL[word](value)
        except ValueError as error:
            read.append(file.fault(f"{word}: {error}", word))
    entries = [one for one in read if isinstance(one, Entry)]
    return entries, general, [one for one in read if isinstance(one, Fault)]


def _entries(file: File, tables: object) -> list[Entry | Fault]:
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise ValueError("is written as [[identity]]")
    return [one for number, table in enumerate(tables) for one in _entry(file, number, table)]


def _entry(file: File, number: int, table: Mapping[str, Any]) -> list[Entry] | list[Fault]:
    values: dict[str, Any] = {}
    faults: list[tuple[str, str]] = []  # at which word, and what
    for word, value in table.items():
        if word not in _WORDS:
            faults.append((word, unknown(word, WORDS)))
            continue
        try:
            values[word.replace("-", "_")] = _WORDS[word](value)
        except (OSError, ValueError) as error:
            faults.append((word, f"{word}: {getattr(error, 'strerror', None) or error}"))
    if all(word in _WORDS for word in table):  # else what is missing may be there, misspelt
        faults += _contradictions(table)
    if faults:
        return [file.fault(what, word, ("identity", number)) for word, what in faults]
    values["public"], values["comment"] = values["public"]
    line = file.fault("", "", ("identity", number)).line
    return [Entry(f"{file.path}:{line}", **values)]


def _contradictions(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with its words beside each other, and at which that stands."""
    if "public" not in table:
        yield "", "public is missing: whose key it is"
    sources = [name for name in _SOURCES if name in table]
    if len(sources) > 1:
        yield sources[1], f"{' and '.join(sources)}: a key comes from one of them"
    for word in ("passphrase", "lifetime", "idle", "confirm", "forwarded"):
        if word in table and not sources:
            yield (
                word,
                f"{word} is for a key that comes from {', '.join(_SOURCES)}: none is named",
            )
    if table.get("elsewhere") is False and "hosts" not in table:
        yield "elsewhere", "elsewhere = false is for a key that has hosts: none are named"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a text in quotes, not {value!r}")
    return value


def _path(value: object) -> str:
    path = os.path.expanduser(_text(value))
    if not os.path.isabs(path):
        raise ValueError(f"expected a path from / or ~, not {value!r}")
    return path


def _public(value: object) -> tuple[PublicKey, str]:
    """A line of a .pub file, or the path of one; the key and its comment."""
    text = _text(value)
    if text.startswith(("/", "~")):
        path = _path(text)
        try:
            text = read_own(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        key, comment = parse_line(text)
        comment = comment or path.removesuffix(".pub")
    else:
        key, comment = parse_line(text)
        comment = comment or key.fingerprint()
    if len(comment) > _LONGEST_COMMENT:
        raise ValueError(f"a comment of {len(comment)} characters: {_LONGEST_COMMENT} at most")
    return key, comment


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f'expected a list of texts as in ["one", "two"], not {value!r}')
    return tuple(map(_text, value))


def _span(value: object) -> int:
    try:
        span = value if type(value) is int else seconds(_text(value))
    except ValueError as error:
        raise ValueError(f"expected a time as in '1h' or '90s', not {value!r}") from error
    if span < 1:
        raise ValueError("no time at all")
    if span > LONGEST:
        raise ValueError("too long a time")
    return span


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, not {value!r}")
    return value


def _one_of(*names: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in names:
            raise ValueError(f"expected {', '.join(map(repr, names))}, not {value!r}")
        return str(value)

    return read


_WORDS: Mapping[str, Callable[[object], Any]] = {
    "public": _public,
    "file": _path,
    "credential": _path,
    "command": _texts,
    "passphrase": _texts,
    "lifetime": _span,
    "idle": _span,
    "forwarded": _flag,
    "confirm": _one_of("always", "forwarded"),
    "hosts": _texts,
    "elsewhere": _flag,
    "certificate": _texts,
    "renew-before": _span,
    "notify": _one_of(*_WHEN),
}
WORDS = tuple(_WORDS)
_GENERAL: Mapping[str, Callable[[object], str | bool]] = {
    "learn-hosts": _flag,
    "notify": _one_of(*_WHEN),
}
