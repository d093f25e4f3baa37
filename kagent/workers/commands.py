"""The commands that a user's configuration names, and how they are started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from .. import programs
from ..confine.process import die_with_parent

# What finds programs and the user's files, and what a window or a browser needs to be opened.  Not
# SSH_AUTH_SOCK: a command that needs the key that it is to give would wait for itself.
_PASSED_ON = (
    *("HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "GNUPGHOME"),
    *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"),
    *("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
)


def environment() -> dict[str, str]:
    """What such a command is told of the user's session."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def output(words: Sequence[str], seconds: float, most: int, **besides: str) -> bytes:
    """What such a command prints, at most `most` bytes; its complaints are read by nobody.

    `besides` is what its environment has more.  It has no descriptor of kagent's, and no keyring:
    those who call this have none.  Raises programs.NoOutput.
    """
    return programs.output(
        words,
        seconds,
        most,
        stderr=subprocess.DEVNULL,
        cwd=os.environ.get("HOME", "/"),
        env=environment() | besides,
        preexec_fn=die_with_parent,
    )
