"""Makes kagent your agent: writes the units kagent.socket and kagent.service to
~/.config/systemd/user and enables the socket, which sets SSH_AUTH_SOCK for all that your systemd
starts from then on: graphical programs and the terminals in them.  Logins by ssh and on the console
get it from PAM; see kagent(1) for the line that an administrator adds.

Where kagent is a package of the system's, its units serve every user from the next login on, and
there is nothing to install: this starts them now, and undoes uninstall.

kagent starts with the first request and ends a minute after the last one, unless it holds keys
that would be lost.  Says what it did, and which other agents want to be SSH_AUTH_SOCK too."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ..options import fail
from .units import (
    AUTOLOAD,
    SERVICE,
    SOCKET,
    NoSystemd,
    environment,
    own_units,
    packaged,
    properties,
    socket_path,
    systemctl,
    unit_folder,
)

_SHIPPED_COMMAND = re.compile(r"/usr/bin/(kagent\w*)")  # in the units
_START = re.compile("^ExecStart=.*", re.MULTILINE)
_RIVALS = (
    "gcr-ssh-agent.socket",
    "gcr-ssh-agent.service",
    "gpg-agent-ssh.socket",
    "ssh-agent.socket",
    "ssh-agent.service",
)
_AUTOLOAD_UNIT = """\
[Unit]
Description=Keys that kagent has from the start
Requires={socket}
After={socket}

[Service]
Type=oneshot
Environment=SSH_AUTH_SOCK=%t/kagent/agent.sock
ExecStart={command} -q {keys}

[Install]
WantedBy=default.target
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument(
        "--autoload",
        metavar="KEY",
        action="append",
        default=[],
        help="a key file, without passphrase, to be loaded at login (may be repeated)",
    )
    parser.add_argument(
        "--behind",
        metavar="SOCKET",
        action="append",
        default=[],
        help="another agent, whose keys kagent lists and signs with too (may be repeated)",
    )


def run(*, autoload: list[str], behind: list[str]) -> int:
    """Set it up and start it; the exit code."""
    folder = unit_folder()
    sockets = [os.path.abspath(path) for path in behind]
    units = {} if packaged() else _units(sockets)
    if packaged():
        _look_at_own(sockets)
    if autoload:
        units[AUTOLOAD] = _AUTOLOAD_UNIT.format(
            socket=SOCKET,
            command=_quoted(_command("kagent-add")),
            keys=" ".join(_quoted(_key_file(key)) for key in autoload),
        )
    before = _variable()
    try:
        rivals = [unit for unit in _rivals() if not _listens_at(unit, sockets)]
        again = properties(SOCKET, "ActiveState").get("ActiveState") == "active"
        folder.mkdir(parents=True, exist_ok=True)
        new = {name: text for name, text in units.items() if _content(folder / name) != text}
        for name, text in new.items():
            (folder / name).write_text(text)
            print(f"wrote {folder / name}")
        systemctl("daemon-reload")
        for name in [SOCKET, AUTOLOAD] if autoload else [SOCKET]:
            if packaged():
                systemctl("unmask", name)
            if properties(name, "UnitFileState").get("UnitFileState") != "enabled":
                systemctl("enable", name)
            # Without need the socket isn't stopped: its keys would go.
            systemctl("restart" if name in new else "start", name)
            print(f"enabled and started {name}")
        systemctl("set-environment", f"SSH_AUTH_SOCK={socket_path()}")
    except (NoSystemd, OSError) as error:
        fail(f"kagentctl: {error}")
    if again and SOCKET in new:
        print(f"{SOCKET} has changed and was restarted: what kagent held is gone")
    elif again and SERVICE in new:
        print(f"{SERVICE} has changed, which counts from kagent's next start on; to start it now,")
        print("    without the keys that would end with it:")
        print(f"    systemctl --user restart {SERVICE}")
    if before not in ("", socket_path()):
        print(f"SSH_AUTH_SOCK was {before}; it is set anew by {SOCKET}")
    print(f"SSH_AUTH_SOCK is {socket_path()} for what systemd starts from now on")
    if rivals:
        # As they end, they unset the variable, whosever it is.
        print(f"warning: SSH_AUTH_SOCK is set by {' and '.join(rivals)} too; to turn that off:")
        print(f"    systemctl --user mask --now {' '.join(rivals)}")
        print(f"    systemctl --user set-environment SSH_AUTH_SOCK={socket_path()}")
    if os.environ.get("SSH_AUTH_SOCK") != socket_path():
        print("log out and in again; for this shell alone:")
        print(f"    export SSH_AUTH_SOCK={socket_path()}")
    if not packaged():
        quota = _shipped("kagent.conf", "sysctl.d")
        print("for more than some sixty keys that the kernel signs with, as an administrator:")
        print(f"    sudo cp {quota} /etc/sysctl.d && sudo sysctl -p /etc/sysctl.d/kagent.conf")
    print("to undo all that: kagentctl uninstall")
    return 0


def _units(sockets: list[str]) -> dict[str, str]:
    """Those for one user, by name, with these agents behind kagent."""
    units = {name: _with_commands(_shipped(name).read_text()) for name in (SOCKET, SERVICE)}
    options = "".join(f" --behind {_quoted(Path(path))}" for path in sockets)
    units[SERVICE] = _START.sub(lambda found: found[0] + options, units[SERVICE])
    return units


def _look_at_own(sockets: list[str]) -> None:
    """End here where the package's units can't be as asked, or wouldn't count."""
    if sockets:
        fail(
            "kagentctl: the units are all users'; agents behind kagent stand in a file of yours, "
            f"~/.config/kagent/kagent.toml: behind = {json.dumps(sockets)}"
        )
    for unit in own_units():
        if unit.name != AUTOLOAD:
            fail(
                f"kagentctl: {unit} counts instead of the package's unit, and starts another "
                "kagent; to remove it, and what that agent holds: kagentctl uninstall"
            )


def _content(file: Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:
        return None


def _with_commands(unit: str) -> str:
    return _SHIPPED_COMMAND.sub(lambda found: _quoted(_command(found[1])), unit)


def _command(name: str) -> Path:
    beside = Path(sys.argv[0]).absolute().with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    if found is None:
        fail(f"kagentctl: {name} is not beside {sys.argv[0]}, nor in PATH")
    return Path(found)


def _shipped(name: str, folder: str = "") -> Path:
    """A file that came with this installation, however that was made."""
    try:
        for file in distribution("kagent").files or ():
            if file.name == name and folder in ("", file.parent.name):
                return Path(str(file.locate())).resolve()
    except PackageNotFoundError:
        pass
    fail(f"kagentctl: {name} is missing from this installation of kagent")


def _key_file(name: str) -> Path:
    path = Path(name).absolute()
    if not path.is_file():
        fail(f"kagentctl: {name}: no such key file")
    return path


def _quoted(path: Path) -> str:
    # systemd.service(5), COMMAND LINES; and % is for specifiers, $ for variables.
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'


def _variable() -> str:
    try:
        return environment().get("SSH_AUTH_SOCK", "")
    except NoSystemd as error:
        fail(
            f"kagentctl: this user has no systemd to install kagent in: {error}; "
            'without it: eval "$(kagent -s)"'
        )


def _listens_at(unit: str, sockets: list[str]) -> bool:
    """Whether it is that of an agent behind, which has to run."""
    listens = properties(unit, "Listen").get("Listen", "")
    return any(f"{socket} (Stream)" in listens for socket in sockets)


def _rivals() -> list[str]:
    output = systemctl("list-units", "--plain", "--no-legend", "--state=active", *_RIVALS)
    return [line.split()[0] for line in output.splitlines()]
