"""Which program is behind a process, and which started it, as /proc shows it.  proc_pid_stat(5).

Everything here can end, or be replaced, while it is looked at; what isn't there is left out.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from ..custody import clock
from ..jobs.questions import Asker, ClientProcess
from ..text import shown

_MOST_SHOWN = 8
_LONGEST_NAME = 40  # characters
_LONGEST_COMMAND = 16384  # bytes
_TICK = clock.SECOND // os.sysconf("SC_CLK_TCK")  # nanoseconds

# Fields behind the command's name, which is in parentheses and may contain them.
_PARENT, _STARTED = 1, 19

# Where users install programs for all; from anywhere else the whole path is shown.
_INSTALLED = re.compile(r"/(usr|bin|sbin|opt|snap|nix/store|gnu/store)/")
_DELETED = " (deleted)"  # after an upgrade of what runs

_INTERPRETER = re.compile(
    r"(python|perl|ruby|node|php|lua|tclsh|guile)[\d.]*|(ba|da|z|k|mk)?sh|fish"
)
_OPTION_WITH_CODE = re.compile(r"-\w*[cem]")


class Process(NamedTuple):
    """A process at one moment.  `started` is in clock ticks since boot.

    `path` is that of the program, which the process can't choose; empty if it isn't ours to see.
    `name` is what the process calls itself, and `command` what it was called with, or says so.
    """

    pid: int
    parent: int
    started: int
    path: str
    name: str
    command: tuple[str, ...]

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """What is known now of `pid`; None if there is no such process, or none that we may see."""
        try:
            folder = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # By this descriptor all is read of one process, even if its number goes to another.
            name, _, rest = _content(folder, "stat").partition(b"(")[2].rpartition(b")")
            fields = rest.split()
            path = ""
            command: tuple[str, ...] = ()
            with suppress(OSError):  # of another user, or not to be inspected
                path = os.readlink("exe", dir_fd=folder)
            with suppress(OSError):
                words = _content(folder, "cmdline").split(b"\0")[:-1]
                command = tuple(os.fsdecode(word) for word in words)
            return cls(
                pid, int(fields[_PARENT]), int(fields[_STARTED]), path, os.fsdecode(name), command
            )
        except (OSError, IndexError, ValueError):
            return None
        finally:
            os.close(folder)

    @property
    def program(self) -> str:
        """The program's file name: without doubt, where there is a path."""
        return os.path.basename(self.path.removesuffix(_DELETED))

    @property
    def label(self) -> str:
        """How it is shown: its program, an interpreter's with the script that it claims to run;
        '[name]' if only its own word for itself is known, as ps(1) has it."""
        if not self.path:
            return f"[{shown(self.name)}]"
        installed = _INSTALLED.match(self.path)
        label = shown(
            self.program if installed else self.path.removesuffix(_DELETED), _LONGEST_NAME
        )
        script = self._script()
        return f"{label} {shown(script, _LONGEST_NAME)}" if script else label

    def _script(self) -> str:
        if not _INTERPRETER.fullmatch(self.program):
            return ""
        for word in self.command[1:3]:  # a first line, #!, can put one word of options before it
            if not word.startswith("-"):
                return word
            if _OPTION_WITH_CODE.fullmatch(word):
                break
        return ""


def lineage(client: ClientProcess) -> list[Process]:
    """The client's process, the one that started it, and so on until process 1.

    Ends earlier at one that has ended or can't be seen, and after eight.
    """
    found: list[Process] = []
    pid, latest = client.pid, client.accepted // _TICK
    while (pid > 1 or (pid == 1 and not found)) and len(found) < _MOST_SHOWN:
        process = Process.read(pid)
        if process is None or process.started > latest:  # the number is another's by now
            break
        found.append(process)
        pid, latest = process.parent, process.started
    return found


def asker_of(pid: int, found: list[Process]) -> Asker:
    """What to tell of the client `pid`, whose lineage is `found`."""
    programs = [process.label for process in found]
    if found and found[-1].parent > 1:
        programs.append("…")
    return Asker(pid, tuple(programs))


def _content(folder: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb", buffering=0) as file:
        return file.read(_LONGEST_COMMAND)
