"""Threads in which the kernel signs, one a processor, while the event loop goes on."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

import outcome
import trio


class _Work(NamedTuple):
    sign: Callable[[], bytes]
    client: socket.socket
    task: trio.lowlevel.Task


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
        self._queue.put(_Work(sign, client, trio.lowlevel.current_task()))
        unsent: bytes = await trio.lowlevel.wait_task_rescheduled(
            lambda _: trio.lowlevel.Abort.FAILED
        )
        return unsent

    def _work(self) -> None:
        while True:
            work = self._queue.get()
            result = outcome.capture(_sign_and_send, work)
            try:
                self._token.run_sync_soon(trio.lowlevel.reschedule, work.task, result)
            except trio.RunFinishedError:
                return
            # The next signature may be a long time coming.
            del work, result


def _sign_and_send(work: _Work) -> bytes:
    frame = work.sign()
    try:
        return frame[work.client.send(frame) :]
    except BlockingIOError:
        return frame
