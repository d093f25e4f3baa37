"""The front's way to the sign workers: each has a socket of its own, for one request at a time."""

from __future__ import annotations

import os
import socket
from collections import deque
from contextlib import suppress

import trio

from ..jobs.jobs import (
    NO_WORKERS,
    WANTED,
    WORKER,
    WORKERS_COME,
    WORKERS_ON_DEMAND,
    Answer,
    SignJob,
    unpack_answer,
)
from .channels import readable
from .turns import Row

# A worker ends itself long before that; this is for one that was stopped, or when there is none.
_SECONDS = 60.0
# Workers asked at once: more would take the processors from each other, and each would sign less in
# its burst.  But one that takes long must not keep out all others.
_MOST_BUSY = max(os.cpu_count() or 1, 2)
# A worker's time can be over when it has read what to sign: on a machine that is busy enough, that
# of several in a row, as one signature of a thousand has met.
_MOST_TRIES = 10
# In bytes: a signature by a 16384-bit RSA key has 2048, one of ML-DSA-44 and Ed25519 2484.
_LONGEST_ANSWER = 4096


class _Wait:
    """Who waits for a worker, with what it is to sign; and gets the one that was sent it."""

    def __init__(self, packet: bytes) -> None:
        self.packet = packet
        self.task = trio.lowlevel.current_task()
        self.worker: socket.socket | None = None


class SignWorkers:
    """The workers that can be asked, and who waits for one."""

    def __init__(self, news: socket.socket) -> None:
        """`news` is where workers come from, and the word whether some will come."""
        news.setblocking(False)
        self._news = news
        self._come = NO_WORKERS  # whether workers are to come, in the keeper's word
        # On the right the one that has signed last: it is asked first, since it is in its burst.
        self._idle: deque[socket.socket] = deque()
        self._busy = 0
        self._waiting: Row[_Wait] = Row()

    async def take_in(self) -> None:
        """Take in the workers that come, until the keeper ends."""
        while True:
            await trio.lowlevel.wait_readable(self._news)
            if not self._hear():
                return

    async def sign(self, job: SignJob, pid: int) -> Answer | None:
        """Have a worker sign, for that process; None if there is none, or some ended over it."""
        packet = job.pack()
        with trio.move_on_after(_SECONDS):
            for _ in range(_MOST_TRIES):
                if answer := await self._ask(packet, pid):
                    return answer
        return None

    async def _ask(self, packet: bytes, pid: int) -> Answer | None:
        """The answer of the first worker that reads this; None if it ends, or there is none."""
        while worker := await self._next(packet, pid):
            answer = None
            try:
                answer = await _receive(worker)
            except ConnectionResetError:
                continue  # it has ended before it could read it
            finally:
                self._busy -= 1
                if answer:
                    self._idle.append(worker)
                else:
                    worker.close()  # if it still answers, that is not what the next asks for
                self._serve_waiting()
            return answer
        return None

    async def _next(self, packet: bytes, pid: int) -> socket.socket | None:
        """A worker that was sent this, when there is one; None if none will come."""
        if not self._idle and self._come == NO_WORKERS:
            self._hear()
        if not self._waiting and (worker := self._send(packet)):
            return worker
        if self._come == NO_WORKERS:
            return None
        wait = _Wait(packet)

        def give_up(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(pid, wait)
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiting.add(pid, wait)
        self._want()
        await trio.lowlevel.wait_task_rescheduled(give_up)
        return wait.worker

    def _serve_waiting(self) -> None:
        # At once, and not when who waits has its turn: so that no worker has to wait for that.
        while self._waiting and (worker := self._send(self._waiting.first().packet)):
            wait = self._waiting.take()
            wait.worker = worker
            trio.lowlevel.reschedule(wait.task)

    def _send(self, packet: bytes) -> socket.socket | None:
        """The worker that was sent this; None if none can be now."""
        while self._idle and self._busy < _MOST_BUSY:
            worker = self._idle.pop()
            try:
                worker.send(packet)
            except (BrokenPipeError, ConnectionResetError):
                worker.close()  # it has ended
            else:
                self._busy += 1
                return worker
        return None

    def _want(self) -> None:
        """Have workers come for who waits, if they don't do so by themselves."""
        if self._waiting and self._come == WORKERS_ON_DEMAND:
            self._come = WORKERS_COME
            with suppress(BrokenPipeError):  # the keeper has ended, and so does this process
                self._news.send(WANTED)

    def _hear(self) -> bool:
        """Take in what has come; False if the keeper has ended."""
        while True:
            try:
                word, descriptors, _, _ = socket.recv_fds(self._news, 1, 1)
            except BlockingIOError:
                return True
            if not word:
                return False
            if word == WORKER:
                self._forget_the_dead()
                # None, where this process may have no more.
                self._idle.extendleft(map(_at, descriptors))
                self._serve_waiting()
            else:
                self._come = word
                self._want()
            while self._waiting and self._come == NO_WORKERS:
                trio.lowlevel.reschedule(self._waiting.take().task)

    def _forget_the_dead(self) -> None:
        """Those that nobody has asked in time, for one that comes in the place of each."""
        for worker in tuple(self._idle):
            if not _lives(worker):
                self._idle.remove(worker)
                worker.close()


def _at(descriptor: int) -> socket.socket:
    worker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=descriptor)
    worker.setblocking(False)
    return worker


async def _receive(worker: socket.socket) -> Answer | None:
    """The answer; None if the worker has ended instead, ConnectionResetError if without reading."""
    while True:
        await readable(worker)
        try:
            return unpack_answer(worker.recv(_LONGEST_ANSWER))
        except BlockingIOError:
            continue


def _lives(worker: socket.socket) -> bool:
    try:
        worker.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False
