"""What `kagent` is told in the files, for want of it on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from .toml import Fault, File, files, read, unknown

Option: TypeAlias = tuple[str, str]  # as getopt(3) gives it


def _value(option: str) -> Callable[[object], Iterator[Option]]:
    def options(value: object) -> Iterator[Option]:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"takes what {option} takes, not {value!r}")
        yield option, str(value)

    return options


def _path(option: str) -> Callable[[object], Iterator[Option]]:
    def options(value: object) -> Iterator[Option]:
        path = os.path.expanduser(value) if isinstance(value, str) else ""
        if not os.path.isabs(path):
            raise ValueError(f"takes a path from / or ~, not {value!r}")
        yield option, path

    return options


def _paths(option: str) -> Callable[[object], Iterator[Option]]:
    def options(value: object) -> Iterator[Option]:
        for one in value if isinstance(value, list) else [value]:
            yield from _path(option)(one)

    return options


def _patterns(option: str, before: str = "") -> Callable[[object], Iterator[Option]]:
    def options(value: object) -> Iterator[Option]:
        patterns = value if isinstance(value, list) else [value]
        texts = [one for one in patterns if isinstance(one, str)]
        if len(texts) != len(patterns):
            raise ValueError(f"takes a list of patterns, not {value!r}")
        yield option, before + ",".join(texts)

    return options


def _flag(option: Option, given: bool) -> Callable[[object], Iterator[Option]]:
    def options(value: object) -> Iterator[Option]:
        if not isinstance(value, bool):
            raise ValueError(f"takes true or false, not {value!r}")
        if value is given:
            yield option

    return options


# What a file may say, and what it stands for on the command line.
_WORDS: Mapping[str, Callable[[object], Iterator[Option]]] = {
    "address": _path("-a"),
    "allow-remote-pkcs11": _flag(("-O", "allow-remote-pkcs11"), True),
    "allowed-providers": _patterns("-P"),
    "behind": _paths("--behind"),
    "burst": _value("--burst"),
    "confirm-behind": _value("--confirm-behind"),
    "custody": _value("--custody"),
    "directory": _value("-A"),
    "fingerprint-hash": _value("-E"),
    "idle-exit": _value("--idle-exit"),
    "keep-stale": _flag(("-U", ""), True),
    "keyring": _value("--keyring"),
    "lifetime": _value("-t"),
    "restrict-websafe": _flag(("-O", "no-restrict-websafe"), False),
    "websafe-allow": _patterns("-O", "websafe-allow="),
}
WORDS = tuple(_WORDS)
# What is for others to read, who look when they need it.
ELSEWHERE = ("identity", "learn-hosts", "notify")
# Each of these says where the socket is to be.
_PLACES = ("address", "directory")


def configured() -> tuple[list[Option], list[Fault]]:
    """What all files say, the machine's first; of one word, the last file's."""
    found: dict[str, list[Option]] = {}
    faults: list[Fault] = []
    for path in files():
        file = read(path)
        if isinstance(file, Fault):
            faults.append(file)
        elif file:
            told, wrong = of_file(file)
            if any(word in told for word in _PLACES):
                for word in _PLACES:
                    found.pop(word, None)
            found |= told
            faults += wrong
    return [option for options in found.values() for option in options], faults


def of_file(file: File) -> tuple[dict[str, list[Option]], list[Fault]]:
    """The options that each of its words stands for, and what is wrong with it."""
    found: dict[str, list[Option]] = {}
    faults: list[Fault] = []
    for word, value in file.told.items():
        if word in _WORDS:
            try:
                found[word] = list(_WORDS[word](value))
            except ValueError as error:
                faults.append(file.fault(f"{word} {error}", word))
        elif word not in ELSEWHERE:
            faults.append(file.fault(unknown(word, (*WORDS, *ELSEWHERE)), word))
    if all(word in found for word in _PLACES):
        faults.append(file.fault("address and directory: only one can be", "directory"))
    return found, faults
