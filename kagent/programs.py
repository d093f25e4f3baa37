"""Programs of others, started as execvp(3) starts them: a script without `#!` is for /bin/sh."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import subprocess

_SHELL = "/bin/sh"
_ELF = b"\x7fELF"

# What a policy says, where /proc isn't mounted, or a kernel that has no such thing.
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOSYS)

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


class NoOutput(Exception):
    """A program didn't print what was wanted of it; says why."""


class TooSlow(NoOutput):
    """It took longer than it may."""


class TooMuch(NoOutput):
    """It printed more than it may."""


def output(words: Sequence[str], seconds: float, most: int, **options: Any) -> bytes:
    """What a program prints, at most `most` bytes, in a session of its own.

    What it has started there ends with it, but for what has left its process group.  `options` are
    subprocess.Popen's.  Raises NoOutput, also where it ends with another exit code than 0.
    """
    import subprocess
    from signal import SIGKILL

    deadline = time.monotonic() + seconds
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "start_new_session": True}
    try:
        program = start(words, **given, **options)
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "strerror", None) or error
        raise NoOutput(f"{words[0]} can't be started: {why}") from error
    with program:
        assert program.stdout
        try:
            printed = _read(program.stdout.fileno(), deadline, most)
            if printed is None:
                raise TooMuch(f"{words[0]} printed more than {most} bytes")
            code = program.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise TooSlow(f"{words[0]} took longer than {seconds:g} seconds") from error
        finally:
            # With all that it has started: the leader is not waited for yet, or was the last.
            with suppress(ProcessLookupError):
                os.killpg(program.pid, SIGKILL)
    if code:
        raise NoOutput(f"{words[0]} ended with exit code {code}")
    return printed


def _read(pipe: int, deadline: float, most: int) -> bytes | None:
    """All that comes; None if that is more.  Raises TimeoutError."""
    printed = b""
    while len(printed) <= most:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        chunk = os.read(pipe, most + 1)
        if not chunk:
            return printed
        printed += chunk
    return None


class CannotHide(Exception):
    """A program can't be started so that others of the user can't look into it; says why."""


def start_hidden(
    words: Sequence[str], prepare: Callable[[], None], **options: Any
) -> subprocess.Popen[bytes]:
    """As `start`; and no other program of the user can look into it, or take its descriptors.

    `prepare` is called in the new process first.  Hidden is what may be executed and not be read:
    execve(2) makes such a process undumpable.  So it is a copy of the program that is started.
    From root nothing is hidden.  Raises OSError, and CannotHide for a script, whose interpreter can
    be read, or where a policy forbids it.
    """
    path = next((path for path in _paths(words[0]) if os.access(path, os.X_OK)), words[0])
    copy = _unreadable_copy(path)

    def prepare_copy() -> None:
        os.set_inheritable(copy, False)  # it is opened before it is closed
        prepare()

    given = {"executable": f"/proc/self/fd/{copy}", "pass_fds": [copy], **options}
    try:
        return start(words, preexec_fn=prepare_copy, **given)
    except OSError as error:
        if error.errno in _FORBIDDEN:
            raise CannotHide(f"what lies in memory can't be executed: {error.strerror}") from error
        raise
    finally:
        os.close(copy)


def _unreadable_copy(path: str) -> int:
    """A descriptor of a copy in memory.  Raises OSError and CannotHide."""
    try:
        with open(path, "rb") as file:
            program = file.read()
    except PermissionError as error:
        raise CannotHide(f"it can't be copied: {error.strerror}") from error
    if not program.startswith(_ELF):
        raise CannotHide("it is a script")
    try:
        copy = _memory_file(os.path.basename(path))
    except OSError as error:
        if error.errno in _FORBIDDEN:
            raise CannotHide(f"it can't be copied into memory: {error.strerror}") from error
        raise
    try:
        # Less than all, where somebody has lowered RLIMIT_FSIZE: prlimit(2).
        if os.write(copy, program) < len(program):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        os.fchmod(copy, 0o100)
    except OSError:
        os.close(copy)
        raise
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
