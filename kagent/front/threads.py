"""Threads in which the kernel signs, one a processor, while the event loop goes on."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable

import trio


class _Work:
    """A signature to be made; the thread that makes it leaves here how that went."""

    unsent = b""
    error: BaseException | None = None

    def __init__(self, client: socket.socket, sign: Callable[[], bytes]) -> None:
        self._client = client
        self._sign = sign
        self.task = trio.lowlevel.current_task()

    def do(self) -> None:
        try:
            self.unsent = self._sign_and_send()
        except BaseException as error:
            self.error = error

    def _sign_and_send(self) -> bytes:
        return send_what_fits(self._client, self._sign())


def send_what_fits(client: socket.socket, frame: bytes) -> bytes:
    """Send without waiting; what couldn't be sent.  Raises OSError."""
    try:
        return frame[client.send(frame) :]
    except BlockingIOError:
        return frame


class Signers:
    """Runs signatures and sends the answer from the same thread.

    trio.to_thread would bring the signature back to the loop first, and the client would wait for
    that; here the loop learns of it while the client already has its answer.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        for _ in range(os.cpu_count() or 1):
            threading.Thread(target=self._work, daemon=True).start()

    async def answer(self, client: socket.socket, sign: Callable[[], bytes]) -> bytes:
        """Call `sign` in a thread and send the frame it gives; what couldn't be sent at once.

        Raises what `sign` raises, with nothing sent.  Not cancelled halfway: a signature takes
        milliseconds, and half a frame would be worse than a late one.
        """
        work = _Work(client, sign)
        self._queue.put(work)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        if work.error is None:
            return work.unsent
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
