"""Asking for a passphrase: on the terminal, or with ssh-askpass as ssh does (readpass.c)."""

from __future__ import annotations

import os
import signal
import sys
import termios
from typing import NoReturn

from ...openssh import askpass
from .report import Report

_LONGEST = 1023  # bytes

# Their default would leave the terminal without echo.
_STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_SIGNALS = (
    *_STOPPING,
    signal.SIGALRM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
)


def passphrase(question: str, report: Report) -> bytes:
    """The passphrase typed; empty if none was given or nobody can be asked."""
    wanted = askpass.preferred()
    if wanted:
        report.debug(1, "requested to askpass")
    elif not os.isatty(0):
        report.debug(1, "stdin is not a tty")
        wanted = askpass.usable()
    return _from_askpass(question) if wanted else _from_terminal(question)


def _from_askpass(question: str) -> bytes:
    try:
        return askpass.ask(question)
    except askpass.Unanswered:
        return b""
    except OSError as error:
        # OpenSSH's words, and its line end: the child's that couldn't become ssh-askpass.
        sys.stderr.write(f"ssh_askpass: exec({askpass.program()}): {error.strerror}\r\n")
        return b""


def _from_terminal(question: str) -> bytes:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        # As readpassphrase(3): without a terminal the prompt and the answer go the usual ways.
        sys.stderr.write(question)
        sys.stderr.flush()
        return _line(0)
    try:
        while True:
            try:
                return _without_echo(terminal, question)
            except _Interrupted as interruption:
                # Whatever was to happen happens now, with the terminal as it was.
                _deliver(interruption.number)
                if interruption.number not in _STOPPING:
                    return b""
    except OSError:
        return b""  # the terminal is gone
    finally:
        os.close(terminal)


class _Interrupted(Exception):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _interrupt(number: int, _: object) -> NoReturn:
    raise _Interrupted(number)


def _deliver(number: int) -> None:
    handler = signal.getsignal(number)
    if callable(handler):
        # At once: Python would call it at some later point, where an exception may get lost.
        handler(number, None)
    else:
        os.kill(os.getpid(), number)


def _without_echo(terminal: int, question: str) -> bytes:
    before = termios.tcgetattr(terminal)
    hidden = before.copy()
    hidden[3] &= ~(termios.ECHO | termios.ECHONL)
    # In the background this stops the process until it is in front, if there is no handler yet.
    termios.tcsetattr(terminal, termios.TCSAFLUSH, hidden)
    # One that stops and is ignored stays so: reading in the background is an error then.
    caught = [one for one in _SIGNALS if one not in _STOPPING or not _is_ignored(one)]
    handlers = {number: signal.signal(number, _interrupt) for number in caught}
    try:
        os.write(terminal, question.encode("utf-8", "surrogateescape"))
        return _line(terminal)
    finally:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        os.write(terminal, b"\n")
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _line(descriptor: int) -> bytes:
    """One line, read byte by byte: what follows it is left for the next reader."""
    line = bytearray()
    while (byte := os.read(descriptor, 1)) not in (b"", b"\n", b"\r"):
        line += byte
    return bytes(line[:_LONGEST])
