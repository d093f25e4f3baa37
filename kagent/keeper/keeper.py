"""The keeper: holds the listening socket and the keyrings, keeps a front running, forks workers.

It reads nothing that a client sent and no key.  It lives as long as the agent does.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, TypeAlias

from .. import confine, log
from ..custody.rings import KeeperRings, Rings
from ..custody.store import Store
from ..keyctl import KernelKeyError, Keyring
from . import forking
from .jobs import HEADER_LENGTH, IDLE, UNUSED, Answer, Done, Job, Kind, Refused, pack_answer
from .listener import ENDING
from .notify import notify
from .policy import Policy

# Five fronts in a row that lived less than a second: the next one won't do better.
_SHORT_LIFE = 1.0
_MOST_SHORT_LIVES = 5

# More than this at once are no user's doing.  Loads, which clients can draw out, are counted by
# themselves: they are not to be in the way of a question to the user.
_MOST_LOADS = 16
_MOST_ERRANDS = 64

# Sign workers that wait, forked ahead of need: two for each processor, so that one can sign while
# the keeper forks the next.
_POOL_SIZE = 2 * (os.cpu_count() or 1)

# A persistent keyring ends three days after it was last asked for.
_RENEWAL_SECONDS = 3600.0

_SIGNALS = (*ENDING, signal.SIGCHLD, signal.SIGUSR1)


# The rings that the front shares, the listening socket, and its ends of the keeper's channels.
Front: TypeAlias = Callable[
    [Rings, socket.socket, socket.socket, socket.socket, socket.socket], NoReturn
]


class Keeper:
    """One agent, from the listening socket to the signal that ends it."""

    def __init__(
        self,
        listener: socket.socket,
        rings: KeeperRings,
        policy: Policy,
        front: Front,
    ) -> None:
        """`front` is what the front does, for its whole life."""
        self._listener = listener
        self._rings = rings
        self._policy = policy
        self._run_front = front
        self._front = 0
        self._idle = False
        self._front_started = 0.0
        self._short_lives = 0
        self._control: socket.socket  # its other end is the front's; a new pair for each front
        self._signing: socket.socket  # likewise; the sign workers' end
        self._looking: socket.socket  # likewise; the lookout's end
        self._lookout = 0
        self._pool: set[int] = set()
        self._loads: dict[int, Callable[[], None]] = {}  # workers, and what their end leads to
        self._errands: set[int] = set()
        self._load_number = 0
        self._renewed = time.monotonic()
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
            # to work; and kept out of the collector's way, so that a fork shares the memory.
            # Nothing is imported any more once there are keys: by then others may have changed it.
            from . import errands, loader, lookout, signer  # noqa: F401

            signer.prepare()
            gc.freeze()
            notify("READY=1")
            return self._serve(command)
        finally:
            notify("STOPPING=1")
            self._end_children()

    def _serve(self, command: int | None) -> int:
        while True:
            wanted = [self._wakeup, self._control.fileno()]
            if not self._lookout:
                wanted.append(self._looking.fileno())
            ready = _readable(wanted if command is None else [*wanted, command])
            if self._wakeup in ready:
                os.read(self._wakeup, 512)
            self._renew_keyring()
            # Before the rest: one read may have taken the marks of several signals.
            if ending := self._pending.intersection(ENDING):
                log.info(f"exiting on signal {min(ending)}")
                return 2
            if signal.SIGUSR1 in self._pending:
                self._pending.discard(signal.SIGUSR1)
                self._remove_all()
            if signal.SIGCHLD in self._pending:
                self._pending.discard(signal.SIGCHLD)
                self._reap()
                if self._idle:
                    log.info("nothing to do: ending until the next request")
                    return 0
                if self._front:
                    self._fill_pool()
                elif not self._restart_front():
                    return 1
                continue  # what is ready may be of the front that has ended
            if self._control.fileno() in ready:
                self._take_job()
            if self._looking.fileno() in ready:
                self._start_lookout()
            if command in ready:
                return 2

    def _renew_keyring(self) -> None:
        now = time.monotonic()
        if now - self._renewed < _RENEWAL_SECONDS:
            return
        self._renewed = now
        try:
            self._rings.renew()
        except KernelKeyError as error:
            log.error(f"the persistent keyring can't be renewed: {error}")

    def _start_front(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._signing, their_signing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._looking, their_looking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sockets = (self._listener, theirs, their_signing, their_looking)
        with theirs, their_signing, their_looking:
            work = partial(self._run_front, self._rings.shared, *sockets)
            self._front = _fork(work, [one.fileno() for one in sockets])
        self._front_started = time.monotonic()

    def _start_lookout(self) -> None:
        from . import lookout

        if not self._looking.recv(1, socket.MSG_PEEK):
            self._end_front()
            return
        try:
            work = partial(lookout.run, self._looking)
            self._lookout = _fork(work, [self._looking.fileno()])
        except OSError as error:
            log.error(f"no lookout can be started: {error}")
            self._looking.recv(1)  # that request is not going to be answered

    def _end_front(self) -> None:
        # It is ending, or has closed what it must keep open; SIGCHLD follows.
        if self._front:
            os.kill(self._front, signal.SIGKILL)

    def _restart_front(self) -> bool:
        self._control.close()
        self._signing.close()
        self._looking.close()
        self._drop_pool()  # it waits at the old front's socket
        self._drop_lookout()
        short = time.monotonic() - self._front_started < _SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= _MOST_SHORT_LIVES:
            log.error("the front doesn't stay up; giving up")
            return False
        log.warning("the front has ended; starting another")
        self._start_front()
        self._fill_pool()
        return True

    def _take_job(self) -> None:
        header, descriptors, _, _ = socket.recv_fds(self._control, HEADER_LENGTH, 4)
        try:
            if not header:
                self._end_front()
                return
            self._carry_out(Job.unpack(header), *descriptors)
        except (ValueError, TypeError) as error:
            log.error(f"the front sent no job: {error}")
        except OSError as error:
            log.error(f"a job can't be done: {error}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _carry_out(self, job: Job, *descriptors: int) -> None:
        if job.kind in (Kind.FORGET, Kind.FORGET_ALL):
            self._forget(job, *descriptors)
        elif job.kind is Kind.LOAD:
            if len(self._loads) < _MOST_LOADS:
                self._load(job, *descriptors)
            else:
                log.warning("too many keys are being loaded at once; refused")
        elif len(self._errands) < _MOST_ERRANDS:
            self._send_out(job, *descriptors)
        else:
            log.warning("too much is asked for at once; refused")

    def _send_out(self, job: Job, *descriptors: int) -> None:
        from . import errands

        work = partial(errands.run, job, descriptors, self._rings, self._policy)
        self._errands.add(_fork(work, descriptors))

    def _load(self, job: Job, client: int, answer: int) -> None:
        from . import loader

        self._load_number += 1
        try:
            inbox = self._rings.new_inbox(self._load_number)
        except KernelKeyError as error:
            # By a worker all the same: what nobody reads of the key, the front would read next.
            refusing = partial(loader.turn_down, job, client, answer, f"no keyring for it: {error}")
            self._loads[_fork(refusing, [client, answer])] = lambda: None
            return
        work = partial(loader.run, job, client, answer, self._rings, inbox, self._policy)
        try:
            child = _fork(work, [client, answer])
        except OSError:
            self._rings.session.unlink(inbox)
            raise
        # The front waits for the end of this pipe, and so for what the keeper has to do after the
        # worker's end.
        self._loads[child] = partial(self._finish_load, inbox, os.dup(answer))

    def _finish_load(self, inbox: Keyring, answer: int) -> None:
        try:
            self._rings.empty_inbox(inbox)
        except KernelKeyError as error:
            log.error(f"a key can't be sealed: {error}")
        os.close(answer)
        self._fill_pool()

    def _forget(self, job: Job, answer: int) -> None:
        try:
            self._rings.sealed.forget(job.description if job.kind is Kind.FORGET else None)
            done: Answer = Done()
        except KernelKeyError as error:
            done = Refused(f"the kernel refused: {error}")
        _answer(answer, done)
        if self._rings.sealed.empty:
            self._drop_pool()

    def _remove_all(self) -> None:
        try:
            # First what signs: a record by itself is nothing.
            self._rings.sealed.forget()
            Store(self._rings.shared).remove_all()
            log.info("all keys were removed, as SIGUSR1 asks")
        except KernelKeyError as error:
            log.error(f"not all keys could be removed: {error}")
        self._drop_pool()

    def _fill_pool(self) -> None:
        from . import signer

        try:
            while not self._rings.sealed.empty and len(self._pool) < _POOL_SIZE:
                self._pool.add(signer.fork(self._signing, self._rings.sealed))
        except OSError as error:  # no more processes, say; the next event tries again
            log.error(f"no worker can be started: {error}")

    def _drop_lookout(self) -> None:
        if self._lookout:
            os.kill(self._lookout, signal.SIGKILL)
            # Its end may be long in coming: it reads files, of which some are far away.
            self._errands.add(self._lookout)
            self._lookout = 0

    def _drop_pool(self) -> None:
        for child in self._pool:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self._pool.clear()

    def _reap(self) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            if os.WIFSIGNALED(status):
                log.warning(f"{self._name(child)} ended by signal {os.WTERMSIG(status)}")
            if child == self._front:
                self._front = 0
                self._idle = os.WIFEXITED(status) and os.WEXITSTATUS(status) == IDLE
            elif child == self._lookout:
                self._lookout = 0
            elif child in self._loads:
                self._loads.pop(child)()
            elif child in self._errands:
                self._errands.discard(child)
            elif child in self._pool:
                # Its place is filled once the front is known to live: without it they end at once.
                self._pool.discard(child)
                if os.WIFEXITED(status) and os.WEXITSTATUS(status) == UNUSED:
                    self._end_front()

    def _name(self, child: int) -> str:
        if child == self._front:
            return "the front"
        if child == self._lookout:
            return "the lookout, which tells who asks,"
        return f"process {child}"

    def _end_children(self) -> None:
        self._drop_pool()
        for child in {self._front, self._lookout, *self._loads, *self._errands} - {0}:
            os.kill(child, signal.SIGKILL)
        if self._front:
            os.waitpid(self._front, 0)
        # The others may be where only others can let them go: in request_key(2), or at a file that
        # is far away.


def _fork(work: Callable[[], NoReturn], kept: Sequence[int]) -> int:
    """Start a worker that has no descriptors but those; its pid.  Only the keeper comes back."""
    keeper = os.getpid()
    child = forking.fork()
    if child:
        return child
    try:
        confine.die_with_parent()
        confine.forbid_new_privileges()
        if os.getppid() == keeper:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the keeper
            _close_all_but(kept)
            log.reconnect()
            work()
    finally:
        os._exit(1)


def _answer(pipe: int, answer: Answer) -> None:
    try:
        os.write(pipe, pack_answer(answer))
    except BrokenPipeError:
        pass  # the front has ended


def _readable(descriptors: Sequence[int]) -> set[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(_RENEWAL_SECONDS * 1000)}


def _close_all_but(kept: Sequence[int]) -> None:
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))
