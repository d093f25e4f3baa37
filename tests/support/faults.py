"""What can be amiss where a program is started: faults, to be done in the new process."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kagent.confine import process, seccomp
from kagent.confine.seccomp import Check
from kagent.keyctl import SESSION_KEYRING, join_anonymous_session, syscalls

_ALLOW = 0x7FFF0000  # seccomp.h of libseccomp
# linux/prctl.h, linux/seccomp.h
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2


@dataclass(frozen=True)
class Fault:
    """`before` is done in the new process, `prefix` starts the program, `env` is set for it.

    A variable that is None is unset.  `root`: only root can have it so.
    """

    before: Callable[[], object] = lambda: None
    prefix: tuple[str, ...] = ()
    env: Mapping[str, str | None] = field(default_factory=dict)
    root: bool = False


def closed(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def full(descriptor: int) -> Callable[[], int]:
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


def nobody_reads() -> None:
    """Standard output is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def ignored(*numbers: int) -> Callable[[], None]:
    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return ignore


def blocked(*numbers: int) -> Callable[[], object]:
    return lambda: signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def descriptors(most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def refused(calls: Mapping[str, Iterable[Check]]) -> Callable[[], None]:
    """A filter by which those system calls fail with EPERM, as in a container."""

    def refuse() -> None:
        library = seccomp.library()
        context = library.seccomp_init(_ALLOW)
        for name, checks in calls.items():
            seccomp._add(context, name, seccomp.refusal(errno.EPERM), list(checks))
        with open(os.memfd_create("filter"), "w+b", buffering=0) as file:
            library.seccomp_export_bpf(context, file.fileno())
            file.seek(0)
            program = seccomp.ffi.from_buffer(file.read())
        argument = seccomp.ffi.new("struct sock_fprog *", (len(program) // 8, program))
        process.forbid_new_privileges()
        address = int(seccomp.ffi.cast("uintptr_t", argument))
        process.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, address)

    return refuse


def folder_gone() -> None:
    """The folder that the process is in has been removed."""
    folder = f"gone-{os.getpid()}"
    os.mkdir(folder)
    os.chdir(folder)
    os.rmdir(f"../{folder}")


def session_revoked() -> None:
    """As what runs on after the end of its login, in tmux say."""
    join_anonymous_session()
    syscalls.revoke(syscalls.get_keyring_id(SESSION_KEYRING, False))


NO_FILTERS = refused({"seccomp": [], "prctl": [Check(0, _PR_SET_SECCOMP)]})
NO_KEYS = refused({"add_key": []})
NO_PIDFD = refused({"pidfd_open": []})
NO_PROC = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")


def stray_modules(folder: Path) -> Path:
    """A folder with files that are called as Python's own modules, and as kagent."""
    folder.mkdir()
    for name in ("enum", "re", "signal", "socket", "typing", "kagent", "sitecustomize"):
        (folder / f"{name}.py").write_text('raise RuntimeError("a stray module")\n')
    return folder


def latin_1(folder: Path) -> dict[str, str]:
    """The variables of a locale in ISO-8859-1, made in `folder`; empty if there can be none."""
    made = folder / "de_DE.ISO-8859-1"
    words = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", made]
    if subprocess.run(words, capture_output=True).returncode not in (0, 1) or not made.exists():
        return {}
    return {"LOCPATH": str(folder), "LC_ALL": made.name}
