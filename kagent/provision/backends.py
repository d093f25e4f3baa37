"""Where keys and passphrases are kept.  Each backend is a few lines over what the machine has."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from .. import programs
from ..custody.configured import FetchFailure
from ..keyctl import join_anonymous_session

_MOST_LINKS = 40  # the kernel's
_LARGEST = 65536  # bytes; an RSA key of 16384 bits has 13,000
_SYSTEMD_CREDS = "/usr/bin/systemd-creds"


class NotDelivered(Exception):
    """There is no key: `failure` is for who asked, the text for the administrator."""

    def __init__(self, failure: FetchFailure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure


@dataclass(frozen=True)
class File:
    """A file that only root can read."""

    path: str
    setting: ClassVar = "file"

    def fetch(self, seconds: float, errors: int) -> bytes:
        """Its content.  Raises NotDelivered."""
        try:
            check_only_root_writes(Path(self.path))
            with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o077:
                    raise NotRootsOwn(f"{self.path} must be a file of mode 0600")
                return file.read(_LARGEST)
        except (OSError, NotRootsOwn) as error:
            raise NotDelivered(FetchFailure.FAILED, str(error)) from error


@dataclass(frozen=True)
class Credential:
    """A credential, sealed by `systemd-creds encrypt` to this machine's TPM or host key.

    Its name is that of the file, as it is by default for `systemd-creds encrypt`.
    """

    path: str
    setting: ClassVar = "systemd-creds"

    def fetch(self, seconds: float, errors: int) -> bytes:
        """Its content.  Raises NotDelivered."""
        return _output((_SYSTEMD_CREDS, "decrypt", self.path, "-"), seconds, errors)


@dataclass(frozen=True)
class Command:
    """Any program that prints it."""

    words: tuple[str, ...]
    setting: ClassVar = "command"

    def fetch(self, seconds: float, errors: int) -> bytes:
        """What it prints.  Raises NotDelivered."""
        try:
            check_only_root_writes(Path(self.words[0]))
        except (OSError, NotRootsOwn) as error:
            raise NotDelivered(FetchFailure.FAILED, str(error)) from error
        return _output(self.words, seconds, errors)


# `fetch` takes at most `seconds`; programs write their complaints to the descriptor `errors`.
Backend: TypeAlias = File | Credential | Command


class NotRootsOwn(Exception):
    """Somebody else could change what root is about to trust."""


def check_only_root_writes(path: Path) -> None:
    """Raises NotRootsOwn if others can change the file, or replace it.  Raises OSError."""
    names = list(reversed(path.absolute().parts[1:]))
    place, links = Path("/"), 0
    while True:
        about = place.lstat()
        if stat.S_ISLNK(about.st_mode) and about.st_uid == 0 and links < _MOST_LINKS:
            links += 1
            target = place.readlink()
            names += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            place = Path("/") if target.is_absolute() else place.parent
            continue
        sticky = stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX
        if about.st_uid != 0 or (about.st_mode & 0o022 and not sticky):
            raise NotRootsOwn(
                f"{place} must be root's, and nobody else's to write: "
                f"chown root {place}; chmod go-w {place}"
            )
        if not names:
            return
        name = names.pop()
        place = place.parent if name == ".." else place / name


def _output(words: tuple[str, ...], seconds: float, errors: int) -> bytes:
    """What a program prints, with nothing in its environment.  Raises NotDelivered."""
    try:
        # It needs no authority over the key that is asked for.
        left = {"cwd": "/", "env": {}, "preexec_fn": _leave_keyrings}
        return programs.output(words, seconds, _LARGEST, stderr=errors, **left)
    except programs.TooSlow as error:
        raise NotDelivered(FetchFailure.TOO_SLOW, str(error)) from error
    except programs.TooMuch as error:
        raise NotDelivered(FetchFailure.UNUSABLE, str(error)) from error
    except programs.NoOutput as error:
        raise NotDelivered(FetchFailure.FAILED, str(error)) from error


def _leave_keyrings() -> None:
    join_anonymous_session()
