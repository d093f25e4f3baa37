"""What every command does first of all and last of all, wherever it was started.

First, as OpenSSH's programs: descriptors 0, 1 and 2 are open, so that nothing else gets their
numbers; signals that the parent ignored or blocked do what they must.  Text is UTF-8, and bytes
that are none go out as they came; but a terminal gets its own charset.  Last: what can't be written
is no reason for a traceback.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import signal
import sys
from _locale import CODESET, nl_langinfo  # the module locale takes long to import
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import programs
from ..confine.process import set_name

# By the first it is known how a program ended that was started, by the second a worker ends.
_NEEDED = (signal.SIGCHLD, signal.SIGALRM)
# Python ignores them, and what is ignored stays so over an exec.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_TERMINAL, _ESCAPED = "kagent-terminal", "backslashreplace"  # what becomes of what can't be encoded
_BYTES = re.compile("[\\udc80-\\udcff]")  # as surrogateescape has them


class OutputLost(Exception):
    """Standard output takes no more: nobody reads it, or the disk is full.

    Not an OSError: who has it to do with files is not who can do something about this.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.nobody_reads = isinstance(error, BrokenPipeError)


def command(name: str, main: Callable[[], int]) -> NoReturn:
    """Run `main`, the command of that name, and end with its exit code."""
    code = _run(name, main)
    sys.stderr.flush()
    # What Python takes apart otherwise is a sixth of what a short command does.
    os._exit(code)


def _run(name: str, main: Callable[[], int]) -> int:
    set_name(name)  # ps would call it python3
    _open_descriptors(name)
    for number in _NEEDED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NEEDED)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _text(_Output(1, "w", closefd=False))
    sys.stderr = _text(_Errors(2, "w", closefd=False))
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except OutputLost as lost:
        if lost.nobody_reads:
            _die_of(signal.SIGPIPE)
        sys.stderr.write(f"{name}: standard output: {lost}\n")
        return 1
    except OSError as error:
        # Nothing that the command has words of its own for: a file that isn't there or is damaged,
        # a call that is refused.
        from ..keyctl import KernelKeyError  # not every command has it

        named = error.filename is not None and not isinstance(error, KernelKeyError)
        told = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else str(error)
        sys.stderr.write(f"{name}: {told}\n")
        return 1
    except KeyboardInterrupt:
        _die_of(signal.SIGINT)
        return 1


def become(words: Sequence[str]) -> NoReturn:
    """Be another program, with nothing of Python's left on it.  Raises OSError."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    programs.become(words)


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from error


class _Errors(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)  # there is nowhere left to say so


def _text(stream: io.FileIO) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(stream)
    encoding, errors = "utf-8", "surrogateescape"
    if stream.isatty() and (charset := _other_charset()):
        # There, parts of a character in UTF-8 could be what steers the terminal.
        encoding, errors = charset, _TERMINAL
    return io.TextIOWrapper(buffered, encoding, errors, line_buffering=True)


def _other_charset() -> str:
    """The locale's, if that isn't UTF-8; the C locale has none, and is where UTF-8 is too."""
    charset = nl_langinfo(CODESET)
    if charset in ("UTF-8", "ANSI_X3.4-1968"):
        return ""
    try:
        codecs.lookup(charset)
    except LookupError:
        return ""
    codecs.register_error(_TERMINAL, _for_terminal)
    return charset


def _for_terminal(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes that aren't text as they came, and what the terminal hasn't got as Python writes it."""
    assert isinstance(error, UnicodeEncodeError)
    written = (
        character.encode("ascii", "surrogateescape" if _BYTES.match(character) else _ESCAPED)
        for character in error.object[error.start : error.end]
    )
    return b"".join(written), error.end


def _open_descriptors(name: str) -> None:
    missing = [descriptor for descriptor in range(3) if not _is_open(descriptor)]
    for descriptor in missing:
        try:
            opened = os.open(os.devnull, os.O_RDWR)
        except OSError as error:
            if 2 not in missing:
                os.write(2, f"{name}: {os.devnull}: {error.strerror}\n".encode())
            os._exit(1)
        # The lowest that is free.
        assert opened == descriptor
        os.set_inheritable(opened, True)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _die_of(number: signal.Signals) -> None:
    """As a program without a handler."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
