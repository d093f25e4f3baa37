"""Tries what an attacker would, each in a process of its own, confined as the argument says.

python -m tests.host.attempts front | load_worker | learn_worker | lookout | sign_worker | nothing

Prints an object in JSON: what was tried, and "done", the name of the error, or that of the signal
which ended the process.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable

from kagent.confine import profiles
from kagent.confine.process import forbid_inspection, prctl
from kagent.keyctl import KernelKeyError
from kagent.keyctl import syscalls as keys

_KEYCTL = keys._KEYCTL
_SESSION_TO_PARENT = 18
_PR_SET_DUMPABLE = 4

_place = f"\0kagent-{os.getpid()}"
_listener = socket.socket(socket.AF_UNIX)
_listener.bind(_place)
_listener.listen()
_other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
_other.bind(f"{_place}-datagrams")
_unconnected = socket.socket(socket.AF_UNIX)
_datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _session_to_parent() -> None:
    keys._call("session_to_parent", _KEYCTL, _SESSION_TO_PARENT)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "create": lambda: os.open("created", os.O_RDONLY | os.O_CREAT),
    "open to write": lambda: os.open("created", os.O_WRONLY),
    "truncate": lambda: os.truncate("created", 0),
    "rename": lambda: os.rename("created", "renamed"),
    "remove": lambda: os.unlink("renamed"),
    "stat": lambda: os.stat("/etc/passwd"),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "socket": lambda: socket.socket(socket.AF_INET),
    "connect": lambda: _unconnected.connect(_place),
    "send to another": lambda: _datagrams.sendto(b"", f"{_place}-datagrams"),
    "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "message": lambda: _datagrams.sendmsg([b""], [], 0, f"{_place}-datagrams"),
    "duplicate": lambda: os.dup(0),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "signal": lambda: os.kill(os.getppid(), 0),
    "dumpable": lambda: prctl(_PR_SET_DUMPABLE, 1),
    "session to parent": _session_to_parent,
    "join session": lambda: keys.join_session_keyring(),
    "chown": lambda: keys.chown(keys.add_key("user", "mine", b"x", -2), os.getuid(), os.getgid()),
}


def _outcome(attempt: Callable[[], object], profile: str) -> str:
    child = os.fork()
    if child == 0:
        code = 255
        try:
            if profile != "nothing":
                serials = {"load_worker": [0], "sign_worker": [0, 0]}.get(profile, [])
                getattr(profiles, profile)(*serials).install()
            attempt()
            code = 0
        except (KernelKeyError, OSError) as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return errno.errorcode.get(code, str(code)) if code else "done"


forbid_inspection()  # as kagent's processes do; and no core dump where it ends in a signal
print(json.dumps({name: _outcome(attempt, sys.argv[1]) for name, attempt in ATTEMPTS.items()}))
