"""Where kagent says what it does: standard error with -d and -D, else the system log.

The agent waits for nobody who reads it: what the log has no room for is lost, and counted.  All
else waits, as kagent-provision, whose lines nobody is to keep out by filling the log.

Not the logging package: its import would be a quarter of the time in which kagent starts.  And not
syslog(3), which always waits for a log daemon that has stopped.
"""

from __future__ import annotations

import codecs
import errno
import os
import select
import socket
import stat
import syslog
import time

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
# In bytes, of a line: with what goes before it a pipe takes that whole or not at all, pipe(7), so
# that no line is the end of another; and a datagram that is too long is lost.
_LONGEST = 4000
_system_log: socket.socket | None = None
_SYSTEM_LOG = "/dev/log"
_confined = False  # a fork of the keeper, which may not be able to connect
_waits = True  # for who reads
_stream: socket.socket | None = None  # standard error, if that is one
_looks_for_room = False  # where a write would wait
_lost = 0  # lines
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


def never_wait() -> None:
    """Have this process and its forks wait for nobody who doesn't read the log, a full pipe say.

    Standard error is opened anew for that, since others have the description that was passed on to
    us, a shell its terminal; with a socket it can be said for each line.
    """
    global _stream, _waits, _looks_for_room
    _waits = False
    if _system_log:
        _system_log.setblocking(False)
    try:
        kind = os.fstat(2).st_mode
        if stat.S_ISSOCK(kind):
            _stream = socket.socket(fileno=2)
        elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            own = os.open("/proc/self/fd/2", flags)
            os.dup2(own, 2)
            os.close(own)
    except OSError:  # it is closed, or another user's
        _looks_for_room = True


def _connect() -> None:
    # At once: a confined process can't do so later.
    global _system_log
    if _system_log:
        _system_log.close()
        _system_log = None
    try:
        _system_log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        _system_log.setblocking(_waits)
        _system_log.connect(_SYSTEM_LOG)
    except OSError:
        pass  # there is no log, or not yet; or no descriptor, which is no reason to end


def tell_too(descriptor: int | None) -> None:
    """Write errors to that pipe as well; until None is given, and not in forks."""
    global _waiting
    _waiting = descriptor


def reconnect() -> None:
    """To be called where a fork's descriptors were closed, and with them the system log's."""
    global _confined, _system_log
    tell_too(None)
    _confined = True
    if _system_log:
        _system_log.detach()
        _system_log = None
    if not _to_stderr:
        _connect()


def settings() -> tuple[bool, bool]:
    """What `configure` was told, for a program that logs to the same place."""
    return _to_stderr, _threshold == syslog.LOG_DEBUG


def _write(level: int, text: str) -> None:
    if level > _threshold:
        return
    line = _LABELS[level] + _shortened(printable(text))
    if _waiting is not None and level <= syslog.LOG_ERR:
        _write_to(_waiting, f"{_name}: {printable(text)}\n")
    global _lost
    try:
        if _lost:
            _send(syslog.LOG_WARNING, f"warning: {_lost} lines were lost: nobody has read the log")
            _lost = 0
        _send(level, line)
    except BlockingIOError:
        _lost += 1
    except OSError:
        pass  # nobody is left to read it


def _shortened(line: str) -> str:
    """Both ends of what is long, as any client can make a name."""
    content = line.encode()
    if len(content) <= _LONGEST:
        return line
    half = _LONGEST // 2 - 2
    return f"{content[:half].decode(errors='ignore')}…{content[-half:].decode(errors='ignore')}"


def _send(level: int, line: str) -> None:
    """Raises OSError; BlockingIOError where there is no room."""
    if not _to_stderr:
        _send_to_system_log(level, line)
        return
    # The journal knows who writes, and takes the level from the line: sd-daemon(3).
    start = f"<{level}>" if _to_journal else f"{_name}[{os.getpid()}]: "
    packet = f"{start}{line}\n".encode()
    if _stream:
        _stream.send(packet, socket.MSG_DONTWAIT)
        return
    if _looks_for_room:
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError
    os.write(2, packet)


def _send_to_system_log(level: int, line: str) -> None:
    # As syslog(3) has it, and RFC 3164.
    when = time.strftime("%b %e %H:%M:%S")
    packet = f"<{syslog.LOG_AUTH | level}>{when} {_name}[{os.getpid()}]: {line}".encode()
    try:
        _send_packet(packet)
    except BlockingIOError:
        raise
    except OSError:
        if _confined:
            raise
        _connect()  # the log was started anew
        _send_packet(packet)


def _send_packet(packet: bytes) -> None:
    if not _system_log:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    _system_log.send(packet)


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
