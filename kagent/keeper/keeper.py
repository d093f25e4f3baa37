"""The keeper: holds the listening socket, keeps a front running, forks a worker for each job.

It reads nothing that a client sent and holds no key.  It lives as long as the agent does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence

from .. import confine, log
from .jobs import DESCRIPTORS, HEADER_LENGTH, Job
from .listener import ENDING

# Five fronts in a row that lived less than a second: the next one won't do better.
_SHORT_LIFE = 1.0
_MOST_SHORT_LIVES = 5

# More loads than this at once are no user's doing.
_MOST_WORKERS = 64

_SIGNALS = (*ENDING, signal.SIGCHLD)


class Keeper:
    """One agent, from the listening socket to the signal that ends it."""

    def __init__(self, listener: socket.socket, front_options: Sequence[str]) -> None:
        self._listener = listener
        self._front_options = front_options
        self._front = 0
        self._front_started = 0.0
        self._short_lives = 0
        self._control: socket.socket  # its other end is the front's; a new pair for each front
        self._workers: set[int] = set()
        self._pending: set[int] = set()  # signals that have come and are not handled yet
        self._wakeup, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self, *, ignore_interrupt: bool, command: int | None = None) -> int:
        """Serve until a signal says to end; the exit code.

        `command` is the pidfd of the process whose agent this is: its end is the agent's too.
        """
        for number in _SIGNALS:
            signal.signal(number, lambda number, frame: self._pending.add(number))
        signal.set_wakeup_fd(self._waker)
        if ignore_interrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        try:
            self._start_front()
            # Imported once, and while the front starts on another core, so that a fork is ready
            # to work.
            from . import worker  # noqa: F401

            return self._serve(command)
        finally:
            self._end_children()

    def _serve(self, command: int | None) -> int:
        while True:
            wanted = [self._wakeup, self._control.fileno()]
            ready = _readable(wanted if command is None else [*wanted, command])
            if self._wakeup in ready:
                os.read(self._wakeup, 512)
            # Before the rest: one read may have taken the marks of several signals.
            if ending := self._pending.intersection(ENDING):
                log.info(f"exiting on signal {min(ending)}")
                return 2
            if signal.SIGCHLD in self._pending:
                self._pending.discard(signal.SIGCHLD)
                self._reap()
                if not self._front and not self._restart_front():
                    return 1
            elif self._control.fileno() in ready:
                self._take_job()
            elif command in ready:
                return 2

    def _start_front(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            for end in (self._listener, theirs):
                end.set_inheritable(True)
            numbers = [str(self._listener.fileno()), str(theirs.fileno())]
            # A program of its own, not a fork: what the keeper has imported and what its memory
            # held is not there, and its addresses tell nothing about the keeper's.
            program = [sys.executable, "-P", "-m", "kagent.agent", *numbers, *self._front_options]
            self._front = os.posix_spawn(sys.executable, program, os.environ)
        self._control = ours
        self._front_started = time.monotonic()

    def _restart_front(self) -> bool:
        self._control.close()
        short = time.monotonic() - self._front_started < _SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= _MOST_SHORT_LIVES:
            log.error("the front doesn't stay up; giving up")
            return False
        log.warning("the front has ended; starting another")
        self._start_front()
        return True

    def _take_job(self) -> None:
        header, descriptors, _, _ = socket.recv_fds(self._control, HEADER_LENGTH, 4)
        try:
            if not header:
                return  # the front is ending; SIGCHLD follows
            job = Job.unpack(header)
            if len(descriptors) != DESCRIPTORS[job.kind]:
                raise ValueError(f"{len(descriptors)} descriptors")
            if len(self._workers) >= _MOST_WORKERS:
                log.warning("too many keys are being loaded at once; refused")
                return
            self._fork_worker(job, descriptors)
        except ValueError as error:
            log.error(f"the front sent no job: {error}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork_worker(self, job: Job, descriptors: Sequence[int]) -> None:
        from . import worker

        keeper = os.getpid()
        child = os.fork()
        if child:
            self._workers.add(child)
            return
        confine.die_with_parent()
        if os.getppid() != keeper:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(descriptors)
        worker.run(job, *descriptors)

    def _reap(self) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            self._workers.discard(child)
            if os.WIFSIGNALED(status):
                log.warning(f"process {child} ended by signal {os.WTERMSIG(status)}")
            if child == self._front:
                self._front = 0

    def _end_children(self) -> None:
        for child in {self._front, *self._workers} - {0}:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _readable(descriptors: Sequence[int]) -> set[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll()}


def _close_all_but(kept: Sequence[int]) -> None:
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))
