"""The process in the foreground: who started it waits for it and signals it.  The keeper is a fork.

A program that starts can be opened through /proc/PID/mem by its user until it forbids that, and who
has it open can read and write that memory for as long as it is used.  A fork's memory is its own,
and nobody could ever open it.  So this process gives the keeper all, keeps nothing, and waits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..confine import process
from .listener import ENDING, Listener
from .notify import notify

# What the keeper has told to who started it, as sd_notify(3) has it: systemd hears only the process
# that it has started.
Tell = Callable[[str], None]
READY = "READY=1"  # it serves

_PASSED_ON = (*ENDING, signal.SIGUSR1)


def run(listener: Listener, keep: Callable[[Tell], int]) -> int:
    """Have a fork do `keep`, the keeper's life, and wait for its end; its exit code, as a shell's.

    To be called with ENDING blocked.  If this process is killed, so is the keeper.
    """
    process.forbid_new_privileges()
    here = os.getpid()
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        process.die_with_parent()
        if os.getppid() != here:  # it was killed before that
            listener.remove()
            os._exit(1)
        os.close(reading)
        os._exit(keep(partial(_tell, writing)))
    os.close(writing)
    listener.socket.close()
    for number in _PASSED_ON:
        signal.signal(number, partial(_pass_on, keeper))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    with open(reading, encoding="ascii") as told:
        for line in told:
            notify(line.rstrip("\n"))
    _, status = os.waitpid(keeper, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _tell(descriptor: int, state: str) -> None:
    with suppress(BrokenPipeError):  # killed: a signal follows
        os.write(descriptor, f"{state}\n".encode())


def _pass_on(keeper: int, number: int, frame: object) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.kill(keeper, number)
