"""Asking for a passphrase: on the terminal, or with ssh-askpass as ssh does (readpass.c)."""

from __future__ import annotations

import getpass
import os
import sys

from .. import askpass

_LONGEST = 1023  # bytes


def passphrase(prompt: str) -> bytes:
    """The passphrase typed; empty if none was given or nobody can be asked."""
    if askpass.preferred() or (askpass.usable() and not os.isatty(0)):
        return _from_askpass(prompt)
    return _from_terminal(prompt)


def _from_askpass(prompt: str) -> bytes:
    try:
        return askpass.ask(prompt)
    except askpass.Unanswered:
        return b""
    except OSError as error:
        # OpenSSH's words, and its line end: the child's that couldn't become ssh-askpass.
        sys.stderr.write(f"ssh_askpass: exec({askpass.program()}): {error.strerror}\r\n")
        return b""


def _from_terminal(prompt: str) -> bytes:
    try:
        with open("/dev/tty", "rb"):
            pass
    except OSError:
        # As readpassphrase(3): without a terminal the prompt and the answer go the usual ways.
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return sys.stdin.buffer.readline()[:_LONGEST].rstrip(b"\n")
    try:
        return os.fsencode(getpass.getpass(prompt))[:_LONGEST]
    except EOFError:
        return b""
