"""kagent.toml: what kagent is told in a file of the user's, for want of it on the command line."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from ..keeper.listener import NoPlace, home_directory
from .options import fail, one_of

_LARGEST = 65536  # bytes


def configured(words: Sequence[str], sockets: Sequence[str]) -> list[tuple[str, str]]:
    """The file's settings as options and their values, as `options.parse` gives them.

    Long options may stand there: `words`, which take a word or a number, and `sockets`, which take
    a list of paths.  None if there is no file; the program ends with exit code 1 where it is no
    good.
    """
    try:
        folder = os.environ.get("XDG_CONFIG_HOME") or f"{home_directory()}/.config"
    except NoPlace:
        return []
    path = f"{folder}/kagent/kagent.toml"
    try:
        content = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        fail(f"kagent: {path}: {getattr(error, 'strerror', None) or error}")
    import tomllib  # who has no such file starts without it

    try:
        return list(_options(tomllib.loads(content), words, sockets))
    except ValueError as error:
        fail(f"kagent: {path}: {error}")
    except RecursionError:
        fail(f"kagent: {path}: values in values, too many to be read")


def _read(path: str) -> str:
    # Whatever there is must not hold the start up; and it says whom kagent asks for signatures.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a file")
        if about.st_uid not in (0, os.getuid()):
            raise ValueError("it is another user's")
        if about.st_mode & 0o022:
            raise ValueError(f"others can write to it: chmod go-w {path}")
        return file.read(_LARGEST).decode()


def _options(
    settings: dict[str, Any], words: Sequence[str], sockets: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Raises ValueError."""
    for name, value in settings.items():
        if name in sockets:
            for one in value if isinstance(value, list) else [value]:
                if not isinstance(one, str) or not os.path.isabs(os.path.expanduser(one)):
                    raise ValueError(f"{name} takes a list of paths from / or ~, not {one!r}")
                yield f"--{name}", os.path.expanduser(one)
        elif name not in words:
            raise ValueError(f"unknown word {name!r}; {_nearest(name, [*words, *sockets])}")
        elif isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{name} takes what --{name} takes, not {value!r}")
        else:
            yield f"--{name}", str(value)


def _nearest(name: str, words: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, words, 1)
    return f"did you mean {near[0]!r}?" if near else f"it may say {one_of(sorted(words))}"
