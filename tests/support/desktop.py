"""A desktop that shows notifications: a bus of its own, and a daemon whose display nobody sees."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .programs import SECONDS, Person, wait_until

_INTERFACE = "org.freedesktop.Notifications"


@dataclass(frozen=True)
class Desktop:
    """`address` is the bus's."""

    address: str
    calls: Path
    printed: Path

    @property
    def told(self) -> list[tuple[str, str]]:
        """What was asked to be shown: headings and texts, as they went over the bus."""
        calls = self.calls.read_text().split("member=Notify")[1:]
        strings = (re.findall(r'^   string "(.*?)"$', call, re.M | re.S) for call in calls)
        # The name of the program, an icon, and these two.
        return [(one[2], one[3]) for one in strings if len(one) >= 4]

    @property
    def shown(self) -> str:
        """What the daemon has printed of what it showed, with the markup that it made of it."""
        return self.printed.read_text()


@contextmanager
def desktop(person: Person) -> Iterator[Desktop]:
    """One of that person's, until the block ends."""
    calls, printed = person.file("calls", ""), person.file("printed", "")
    with ExitStack() as running:

        def start(*command: str, output: Path | int, **env: str) -> subprocess.Popen[str]:
            into = running.enter_context(output.open("w")) if isinstance(output, Path) else output
            process = person.start(*command, stdout=into, stderr=subprocess.DEVNULL, env=env)
            running.callback(process.wait, SECONDS)
            running.callback(process.terminate)
            return process

        command = ("dbus-daemon", "--session", "--nofork", "--print-address=1")
        address = _line(start(*command, output=subprocess.PIPE))
        display = _line(start("Xvfb", "-displayfd", "1", output=subprocess.PIPE))
        env = {"DBUS_SESSION_BUS_ADDRESS": address, "DISPLAY": f":{display}"}
        start("dbus-monitor", f"interface='{_INTERFACE}'", output=calls, **env)
        wait_until(lambda: "NameLost" in calls.read_text())  # it is a monitor by then
        start("dunst", "-print", output=printed, **env)
        names = ("busctl", "--user", "list", "--acquired")
        wait_until(lambda: _INTERFACE in person.run(*names, **env).stdout)
        yield Desktop(address, calls, printed)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def only(folder: Path, *programs: str) -> str:
    """A PATH on which there are these programs and no others."""
    folder.mkdir(mode=0o755)
    for name in programs:
        (folder / name).symlink_to(next(_places(name)))
    return str(folder)


def _places(name: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        if (path := Path(folder, name)).exists():
            yield path
