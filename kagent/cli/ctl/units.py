"""The user's systemd, as kagentctl asks it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..options import fail

SERVICE = "kagent.service"
SOCKET = "kagent.socket"
AUTOLOAD = "kagent-autoload.service"  # what install writes for --autoload

# Where a distribution's package has the units, for all users, and the commands that they name.
_PACKAGED_UNITS, _PACKAGED_COMMANDS = Path("/usr/lib/systemd/user"), Path("/usr/bin")


class NoSystemd(Exception):
    """This user has no running systemd; says what systemctl says."""


def systemctl(*words: str) -> str:
    """What `systemctl --user` prints.  Raises NoSystemd, also for whatever else it refuses."""
    try:
        done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True)
    except OSError as error:
        raise NoSystemd(f"systemctl: {error.strerror}") from error
    if done.returncode:
        raise NoSystemd(done.stderr.strip() or f"systemctl {words[0]}: code {done.returncode}")
    return done.stdout


def properties(unit: str, *names: str) -> dict[str, str]:
    """Some of a unit's properties; a unit that isn't there is in the state inactive.

    Raises NoSystemd.
    """
    output = systemctl("show", unit, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def environment() -> dict[str, str]:
    """What systemd gives to what it starts for this user.  Raises NoSystemd."""
    lines = systemctl("show-environment").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def socket_path() -> str:
    """Where kagent.socket listens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return f"{runtime}/kagent/agent.sock"


def of_systemd() -> bool:
    """Whether SSH_AUTH_SOCK is kagent.socket, and so its agent one that systemd starts."""
    return os.environ.get("SSH_AUTH_SOCK") == socket_path()


def asleep() -> bool:
    """Whether SSH_AUTH_SOCK is kagent.socket, which waits for a request to start kagent with."""
    if not of_systemd():
        return False
    try:
        states = [properties(unit, "ActiveState")["ActiveState"] for unit in (SOCKET, SERVICE)]
    except (NoSystemd, KeyError):
        return False
    return states == ["active", "inactive"]


def packaged() -> bool:
    """Whether this program is that of a distribution's package, which has units for all users."""
    here = Path(sys.argv[0]).resolve().parent
    return here == _PACKAGED_COMMANDS and (_PACKAGED_UNITS / SOCKET).exists()


def own_units() -> list[Path]:
    """What install has written for this user, if it has."""
    folder = unit_folder()
    # A unit that is masked is a link to /dev/null.
    return [folder / name for name in (AUTOLOAD, SOCKET, SERVICE) if (folder / name).is_file()]


def unit_folder() -> Path:
    """Where install writes units."""
    try:
        configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError:
        fail(f"kagentctl: uid {os.getuid()} has no home: HOME is not set, and no user has it")
    return Path(configuration, "systemd/user")
