"""Threads in which the kernel signs, one a processor, while the event loop goes on."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

import trio

from .turns import Row


class _Work:
    """Something to be done; the thread that does it leaves here what it raised."""

    error: BaseException | None = None

    def __init__(self, work: Callable[[], None], pid: int) -> None:
        self._work = work
        self.pid = pid
        self.task = trio.lowlevel.current_task()

    def do(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error


class _Queue(queue.Queue[_Work]):
    """Of a Row."""

    def _init(self, maxsize: int) -> None:
        self._row: Row[_Work] = Row()

    def _qsize(self) -> int:
        return bool(self._row)

    def _put(self, item: _Work) -> None:
        self._row.add(item.pid, item)

    def _get(self) -> _Work:
        return self._row.take()


class Signers:
    """Runs what signs and answers in one of them.

    trio.to_thread would bring the signature back to the loop first, and the client would wait for
    that; here the loop learns of it while the client already has its answer.
    """

    def __init__(self, alone: Callable[[], bool]) -> None:
        """`alone` tells whether one client is connected and no other."""
        self._alone = alone
        self._queue = _Queue()
        self._token = trio.lowlevel.current_trio_token()
        for _ in range(os.cpu_count() or 1):
            threading.Thread(target=self._work, daemon=True).start()

    async def call(self, sign: Callable[[], None], pid: int) -> None:
        """Call `sign` in a thread, for that process.  Raises what that raises.

        Not cancelled halfway: a signature takes milliseconds, and half a frame would be worse than
        a late one.
        """
        if self._alone():
            # Nobody needs the loop meanwhile, and the way to a thread and back takes longer than
            # all else.  Who connects now waits for this one signature.
            sign()
            return
        work = _Work(sign, pid)
        self._queue.put(work)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        if work.error is None:
            return
        try:
            raise work.error
        finally:
            del work  # it would keep itself: its error has this frame, and this frame has it

    def _work(self) -> None:
        while True:
            work = self._queue.get()
            work.do()
            try:
                self._token.run_sync_soon(trio.lowlevel.reschedule, work.task)
            except trio.RunFinishedError:
                return
            del work  # the next signature may be a long time coming
