"""The commands that a user's configuration names, and how they are started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from .. import programs
from ..confine.process import die_with_parent

# What finds programs and the user's files, and what a window or a browser needs to be opened.
_PASSED_ON = (
    *("HOME", "LANG", "LOGNAME", "PATH", "USER"),
    *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),
)


def output(words: Sequence[str], seconds: float, most: int, **environment: str) -> bytes:
    """What such a command prints, at most `most` bytes; its complaints are read by nobody.

    `environment` is what it has besides the little that is passed on.
    It has no descriptor of kagent's, and no keyring: those who call this have none.  Raises
    programs.NoOutput.
    """
    return programs.output(
        words,
        seconds,
        most,
        stderr=subprocess.DEVNULL,
        cwd=os.environ.get("HOME", "/"),
        env={one: os.environ[one] for one in _PASSED_ON if one in os.environ} | environment,
        preexec_fn=die_with_parent,
    )
