"""Programs of others, started as execvp(3) starts them: a script without `#!` is for /bin/sh."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import subprocess

_SHELL = "/bin/sh"


def start(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """subprocess.Popen with these options.  Raises OSError."""
    # Whoever starts programs has imported it; who becomes one needn't, and it takes long.
    import subprocess

    try:
        return subprocess.Popen(words, **options)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    path = next(path for path in _paths(words[0]) if os.access(path, os.X_OK))
    return subprocess.Popen(_by_shell(path, words), **options)


def become(words: Sequence[str]) -> NoReturn:
    """Be that program from now on.  Raises OSError if it can't be started."""
    why: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in _paths(words[0]):
        try:
            os.execv(path, list(words))  # noqa: S606, no shell is wanted
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            why = error  # another folder of $PATH may have one
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            os.execv(_SHELL, _by_shell(path, words))  # noqa: S606, as execvp(3)
    raise why


def _paths(name: str) -> Iterator[str]:
    """Where a program of that name may be, the first first."""
    if "/" in name:
        yield name
    elif name:
        yield from (os.path.join(folder or ".", name) for folder in os.get_exec_path())


def _by_shell(path: str, words: Sequence[str]) -> list[str]:
    return [_SHELL, path, *words[1:]]
