"""Programs of others, started as execvp(3) starts them: a script without `#!` is for /bin/sh."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import subprocess

_SHELL = "/bin/sh"
_ELF = b"\x7fELF"

# linux/memfd.h: what is to be executed.  Without it sysctl vm.memfd_noexec can forbid it.
_MFD_EXEC = 0x0010


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


def start_hidden(
    words: Sequence[str], prepare: Callable[[], None], **options: Any
) -> subprocess.Popen[bytes]:
    """As `start`; and no other program of the user can look into it, or take its descriptors.

    `prepare` is called in the new process first.  Hidden is what may be executed and not be read:
    execve(2) makes such a process undumpable.  So it is a copy of the program that is started.  A
    script stays readable, as its interpreter is; and so does what root starts, or what can't be
    copied here.  Raises OSError.
    """
    copy = _unreadable_copy(words[0])
    if copy is None:
        return start(words, preexec_fn=prepare, **options)

    def prepare_copy() -> None:
        os.set_inheritable(copy, False)  # it is opened before it is closed
        prepare()

    given = {"executable": f"/proc/self/fd/{copy}", "pass_fds": [copy], **options}
    try:
        return start(words, preexec_fn=prepare_copy, **given)
    except OSError:
        # No /proc, or a policy that lets nothing be executed that lies in memory.
        return start(words, preexec_fn=prepare, **options)
    finally:
        os.close(copy)


def _unreadable_copy(name: str) -> int | None:
    """A descriptor of a copy in memory; None where there can be none, or for a script."""
    path = next((path for path in _paths(name) if os.access(path, os.X_OK)), None)
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            program = file.read()
        copy = _memory_file(os.path.basename(path))
    except OSError:
        return None
    try:
        if not program.startswith(_ELF) or os.write(copy, program) < len(program):
            raise OSError(errno.ENOEXEC, "no whole program")
        os.fchmod(copy, 0o100)
    except OSError:
        os.close(copy)
        return None
    return copy


def _memory_file(name: str) -> int:
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel before 6.3
            raise
        return os.memfd_create(name, os.MFD_CLOEXEC)


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
