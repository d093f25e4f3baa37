"""Asking for a passphrase: on the terminal, or with ssh-askpass as ssh does (readpass.c)."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys

_DEFAULT_ASKPASS = "/usr/bin/ssh-askpass"
_LONGEST = 1023  # bytes


def passphrase(prompt: str) -> bytes:
    """The passphrase typed; empty if none was given or nobody can be asked."""
    requirement = os.environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    allowed = bool(display) and requirement != "never"
    if requirement == "force" or (allowed and (requirement == "prefer" or not os.isatty(0))):
        return _askpass(prompt)
    return _from_terminal(prompt)


def _askpass(prompt: str) -> bytes:
    program = os.environ.get("SSH_ASKPASS", _DEFAULT_ASKPASS)
    try:
        told = subprocess.run([program, prompt], stdout=subprocess.PIPE)
    except OSError as error:
        # OpenSSH's words, and its line end: the child's that couldn't become ssh-askpass.
        sys.stderr.write(f"ssh_askpass: exec({program}): {error.strerror}\r\n")
        return b""
    if told.returncode:
        return b""
    return told.stdout[:_LONGEST].split(b"\n")[0].split(b"\r")[0]


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
