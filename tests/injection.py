"""Code executed within another process, as if who attacks it had got that far.  As root."""

from __future__ import annotations

import json
import re
import subprocess

from .programs import SECONDS

_SETTINGS = ("auto-load off", "confirm off", "debuginfod enabled off", "unwindonsignal on")


def calls_in(pid: int, *calls: str) -> list[int]:
    """What functions of the C library give when process `pid` calls them.

    Each is C, with the type of the function's result before it: '(int)open("/etc/passwd", 0)'.
    A result of -1 is given as the kernel does it: -errno.
    """
    commands = ["--init-eval-command=set " + setting for setting in _SETTINGS]
    for call in calls:
        commands += [
            f"--eval-command=set $result = {call}",
            "--eval-command=set $errno = *((int *(*)())__errno_location)()",
            r'--eval-command=printf "result %ld %d\n", (long)$result, $errno',
        ]
    told = subprocess.run(
        ["gdb", "-nx", "-batch", f"--pid={pid}", *commands],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    found = re.findall(r"^result (-?\d+) (\d+)$", told.stdout, re.MULTILINE)
    assert len(found) == len(calls), told.stdout + told.stderr
    return [-int(number) if result == "-1" else int(result) for result, number in found]


def python_in(pid: int, code: str) -> None:
    """Execute a statement in the Python of process `pid`, which must be waiting for something."""
    run = f"(int)PyRun_SimpleString({json.dumps(code)})"
    # Waiting, it hadn't the interpreter's lock: that is the 1.
    calls_in(pid, "(int)PyGILState_Ensure()", run, "(int)PyGILState_Release(1)")
