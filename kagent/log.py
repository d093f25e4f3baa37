"""Where kagent says what it does: standard error with -d and -D, else the system log.

Not the logging package: its import would be a quarter of the time in which kagent starts.
"""

from __future__ import annotations

import codecs
import os
import syslog

from .text import printable

_LABELS = {
    syslog.LOG_DEBUG: "debug: ",
    syslog.LOG_INFO: "",
    syslog.LOG_WARNING: "warning: ",
    syslog.LOG_ERR: "error: ",
}
_to_stderr = True
_to_journal = False
_name = "kagent"
_threshold = syslog.LOG_INFO
_waiting: int | None = None  # who has started this process, and is to hear why it can't live
codecs.lookup("unicode_escape")  # loads it while this process may still open files


def configure(*, to_stderr: bool, verbose: bool, name: str = "kagent") -> None:
    """Choose where lines go, whether debug lines are among them, and who writes them."""
    global _to_stderr, _to_journal, _threshold, _name
    _name = name
    _to_stderr = to_stderr
    _to_journal = to_stderr and _stderr_is_the_journals()
    _threshold = syslog.LOG_DEBUG if verbose else syslog.LOG_INFO
    if not to_stderr:
        _connect()


def _stderr_is_the_journals() -> bool:
    # systemd.exec(5): device and inode of the stream, for who has inherited the variable only.
    try:
        stream = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


def _connect() -> None:
    # At once: a confined process can't do so later.
    syslog.openlog(_name, syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_AUTH)


def tell_too(descriptor: int | None) -> None:
    """Write errors to that pipe as well; until None is given, and not in forks."""
    global _waiting
    _waiting = descriptor


def reconnect() -> None:
    """To be called where a fork's descriptors were closed, and with them the system log's."""
    tell_too(None)
    if not _to_stderr:
        syslog.closelog()
        _connect()


def settings() -> tuple[bool, bool]:
    """What `configure` was told, for a program that logs to the same place."""
    return _to_stderr, _threshold == syslog.LOG_DEBUG


def _write(level: int, text: str) -> None:
    if level > _threshold:
        return
    line = _LABELS[level] + printable(text)
    if _waiting is not None and level <= syslog.LOG_ERR:
        _write_to(_waiting, f"{_name}: {printable(text)}\n")
    if not _to_stderr:
        syslog.syslog(level, line)
        return
    # The journal knows who writes, and takes the level from the line: sd-daemon(3).
    start = f"<{level}>" if _to_journal else f"{_name}[{os.getpid()}]: "
    _write_to(2, f"{start}{line}\n")


def _write_to(descriptor: int, line: str) -> None:
    try:
        os.write(descriptor, line.encode())
    except OSError:
        pass  # nobody is left to read it


def debug(text: str) -> None:
    """For who looks for a fault: only with -d."""
    _write(syslog.LOG_DEBUG, text)


def info(text: str) -> None:
    """What happened."""
    _write(syslog.LOG_INFO, text)


def warning(text: str) -> None:
    """What was refused or mended."""
    _write(syslog.LOG_WARNING, text)


def error(text: str) -> None:
    """What went wrong in kagent itself."""
    _write(syslog.LOG_ERR, text)
