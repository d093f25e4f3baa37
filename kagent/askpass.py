"""Asking and telling the user through SSH_ASKPASS, as ssh-agent does (OpenSSH's readpass.c)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from . import log

_DEFAULT = "/usr/bin/ssh-askpass"
_LONGEST = 1023  # bytes of an answer
_DEVNULL = subprocess.DEVNULL


def secret(prompt: str) -> str:
    """What the user types for `prompt`; "" if nothing, or if nobody can be asked."""
    if not _may_show():
        log.warning("can't ask the user: there is no display, see SSH_ASKPASS_REQUIRE in ssh(1)")
        return ""
    program = _program()
    try:
        told = subprocess.run([program, prompt], stdin=_DEVNULL, stdout=subprocess.PIPE)
    except OSError as error:
        log.warning(f"{program}: {error.strerror}")
        return ""
    if told.returncode:
        return ""
    line = told.stdout[:_LONGEST].split(b"\n")[0].split(b"\r")[0].split(b"\0")[0]
    return line.decode("utf-8", "surrogateescape")


@contextmanager
def notice(text: str, done: str) -> Iterator[None]:
    """Show `text` as long as the block runs: on our terminal, or else in a window.

    On the terminal, `done` follows if the block ends well.
    """
    if os.isatty(2):
        sys.stderr.write(f"\r{text}\r\n")
        yield
        sys.stderr.write(f"\r{done}\r\n")
        return
    window = _window(text)
    try:
        yield
    finally:
        if window:
            window.terminate()
            window.wait()


def _window(text: str) -> subprocess.Popen[bytes] | None:
    program = _program()
    if not program or not _may_show():
        return None
    environment = {**os.environ, "SSH_ASKPASS_PROMPT": "none"}
    try:
        return subprocess.Popen([program, text], stdin=_DEVNULL, stdout=_DEVNULL, env=environment)
    except OSError as error:
        log.warning(f"{program}: {error.strerror}")
        return None


def _program() -> str:
    return os.environ.get("SSH_ASKPASS", _DEFAULT)


def _may_show() -> bool:
    required = os.environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return required == "force" or (bool(display) and required != "never")
