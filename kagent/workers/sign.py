"""One-shot sign workers: forked ahead of need, each signs with sealed keys for one burst and ends.

A burst begins with the first request and has an end that nothing puts off, so that no process has a
key for long; within it the key that was used last is kept as OpenSSL has it.  But what signs is
what is held, which is looked at for each signature: a key that was removed, or has come to its end,
signs nothing more.

What is to be signed is opaque here, so no client's structure is ever parsed where a sealed key is.
Their parent has left all keyrings but the sealed one behind, and reads nothing; they are its forks
and have no more.  Each has a socket of its own to the front, which the front gets from the parent.

Most of what a process costs is the memory that it touches first: so before it waits, a worker
rehearses its burst with keys that are nobody's.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple, NoReturn

from .. import log
from ..confine import forking, memory, process, profiles
from ..confine.memory import Area
from ..custody import clock
from ..custody.identity import PREFIX
from ..custody.rings import find_sealing_key, sealing_key
from ..custody.shelf import Shelf
from ..jobs import roles
from ..jobs.causes import Cause
from ..jobs.jobs import (
    IDLE,
    LONGEST_SIGN_JOB,
    UNUSED,
    WORKER,
    Refused,
    SignJob,
    pack_answer,
    pack_signature,
)
from ..jobs.terms import BURST
from ..keyctl import KernelKeyError, Keyring, syscalls
from ..private import sealed as custody
from ..private.sealed import ParsedKey

# One worker waits, so that nobody waits for a fork; when it begins, the next is forked.  At most
# one for each processor and one that waits; of those that make one signature, one for each can sign
# while the next is forked.  More than eight processors could sign more than one front asks for.
_PROCESSORS = min(os.cpu_count() or 1, 8)
_MOST = _PROCESSORS + 1
_MOST_OF_ONE_SIGNATURE = 2 * _PROCESSORS

# What no worker rehearses: a signature takes seven times as long as what the next one would gain.
_UNREHEARSED = "ssh-mldsa44-ed25519"

# How long a worker waits for the next request: longer than a client on a busy machine takes to ask
# again when it has its answer.  More would only keep the key.
_LINGER = 10 * clock.MILLISECOND

_SECONDS = 20  # for the first signature: a 16384-bit RSA signature takes one or two
# As long as somebody is at work; to have workers again takes some hundredths of a second.
_IDLE_SECONDS = 600
_QUIET_SECONDS = 1  # until a worker that waits gives back what it has only run ahead of need
_MOMENT = 0.1  # seconds before another try, where a fork fails or what is forked
_UNASKED = 2  # exit code: the front let go of a worker, and may do so of the next


class Safe(NamedTuple):
    """Sealed keys, and the keyring with what opens them."""

    keyring: Keyring
    shelf: Shelf


@cache
def _throwaways() -> Sequence[tuple[bytes, bytes, str]]:
    """Sealed keys with what opens them, and what they sign with."""
    opener = os.urandom(32)
    return tuple(
        (opener, custody.seal(opener, PREFIX, key), algorithm)
        for key, algorithm in custody.throwaways()
    )


class Areas(NamedTuple):
    """What of a fork's memory is to be locked, and what of it is code."""

    locked: Sequence[Area]
    code: Sequence[Area]


@cache
def prepare() -> Areas:
    """Do once what every fork would do anew, or can't do any more; where its memory is."""
    for opener, sealed, algorithm in _throwaways():
        custody.sign(custody.parse(custody.unseal(opener, PREFIX, sealed)), algorithm, b"")
    return Areas(memory.memory_areas(python_objects=False), memory.code_areas())


def run(channel: socket.socket, safe: Safe, burst: int) -> NoReturn:
    """The life of the workers' parent: have one of them wait while others sign.

    The front is sent their sockets through `channel`.  `burst` is in nanoseconds; 0: one signature.
    Ends with IDLE when the one that waits was asked for nothing for long.  Raises CannotConfine and
    KernelKeyError.
    """
    areas = prepare()  # which reads files
    ring = safe.keyring
    profiles.signers(channel.fileno(), ring.serial, find_sealing_key(ring).serial).install()
    # What ends a worker in time must not be what a parent of kagent's has had ignored or blocked.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    Parent(channel, safe, burst, areas).work()


class Parent:
    """Of the workers.  Each has a pipe to it, through which it tells that it begins, and ends."""

    def __init__(self, channel: socket.socket, safe: Safe, burst: int, areas: Areas) -> None:
        self._channel = channel
        self._safe = safe
        self._burst = burst
        self._most = _MOST if burst else _MOST_OF_ONE_SIGNATURE
        self._areas = areas
        self._pids: dict[int, int] = {}  # by the pipe
        self._waiting: int | None = None  # the pipe of the one that waits
        self._told = select.poll()

    def work(self) -> NoReturn:
        """Its life, as `run` has it."""
        while True:
            patience = None
            if self._waiting is None and len(self._pids) < self._most:
                try:
                    self._waiting = self._fork()
                except BrokenPipeError:
                    os._exit(UNUSED)
                except OSError as error:  # no more processes, say
                    log.error(f"no sign worker can be started: {error}")
                    patience = _MOMENT * 1000
            for pipe, _ in self._told.poll(patience):
                self._hear(pipe)

    def _hear(self, pipe: int) -> None:
        begins = os.read(pipe, 1)
        if pipe == self._waiting:
            self._waiting = None
        if begins:
            return
        self._told.unregister(pipe)
        os.close(pipe)
        _, status = os.waitpid(self._pids.pop(pipe), 0)
        code = os.waitstatus_to_exitcode(status)
        if code == IDLE:
            os._exit(IDLE)
        if code < 0 and code != -signal.SIGALRM:
            log.warning(f"a sign worker ended by signal {-code}")
        elif code > 0:
            time.sleep(_MOMENT)

    def _fork(self) -> int:
        """Start a worker, and send its socket to the front; its pipe.  Only the parent returns."""
        parent = os.getpid()
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ours:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST_SIGN_JOB)
            pipe, telling = os.pipe()
            try:
                child = forking.fork()
            except OSError:
                os.close(pipe)
                os.close(telling)
                raise
            if child:
                os.close(telling)
                self._pids[pipe] = child
                self._told.register(pipe, select.POLLIN)
                socket.send_fds(self._channel, [WORKER], [theirs.fileno()])
                return pipe
            try:
                process.die_with_parent()
                if os.getppid() == parent:
                    theirs.close()
                    self._channel.close()
                    for one in (pipe, *self._pids):
                        os.close(one)
                    self._be_worker(ours, telling)
            finally:
                os._exit(1)

    def _be_worker(self, stream: socket.socket, telling: int) -> NoReturn:
        process.set_name(roles.SIGN.name)
        memory.lock_memory(self._areas.locked)
        roles.tell_if_limit_was_lowered(roles.SIGN.title)
        roles.SIGN.confine(self._safe.keyring)
        tell = partial(os.write, telling, b"\0")
        os._exit(Worker(stream, self._safe, self._burst, tell, self._areas.code).work())


class Worker:
    """Signs what is asked for at `stream`."""

    def __init__(
        self,
        stream: socket.socket,
        safe: Safe,
        burst: int,
        tell: Callable[[], object] = lambda: None,
        code: Sequence[Area] = (),
    ) -> None:
        """`tell` is called when it begins; `code` is given back where it waits for long."""
        self._stream = stream
        self._safe = safe
        self._burst = burst
        self._tell = tell
        self._code = code
        self._asked = select.poll()
        self._asked.register(stream, select.POLLIN)
        self._buffer = bytearray(LONGEST_SIGN_JOB)
        # The key that was used last, and as it is sealed; both are None, or neither.
        self._sealed: bytes | None = None
        self._key: ParsedKey = None

    def work(self) -> int:
        """Wait for a request, and sign for one burst; what was kept of a key is overwritten.

        The exit code.
        """
        if self._burst:  # for one signature it would cost more than it saves
            self._rehearse()
        if not self._asked.poll(_QUIET_SECONDS * 1000):
            memory.give_back(self._code)
            if not self._asked.poll(_IDLE_SECONDS * 1000):
                return IDLE
        packet = self._receive()
        if not packet:
            return _UNASKED
        self._tell()
        try:
            self._sign_for_a_burst(packet)
        except BrokenPipeError:
            pass  # the front has ended
        finally:
            # By itself this would come late, after the memory's end: the front may ask yet.
            self._stream.close()
            self._let_go()
        return 0

    def _sign_for_a_burst(self, packet: bytes) -> None:
        # The clock is asked, since a process can be stopped for any time, and a machine suspended;
        # and by the timer the kernel ends what is at work or blocked, or goes on after a stop.
        start = clock.now()
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        if not self._answer(packet, start + BURST) or not self._burst:
            return
        end = start + self._burst
        left = end - clock.now()
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, left / clock.SECOND)
        # What is begun must get done: so nothing is begun in the last quarter.
        last = end - self._burst // 4
        while self._is_asked_before(last):
            packet = self._receive()
            if not packet or not self._answer(packet, end):
                return

    def _receive(self) -> bytes:
        """A request; empty if the front has let go of this worker."""
        length = self._stream.recv_into(self._buffer)
        return bytes(memoryview(self._buffer)[:length])

    def _is_asked_before(self, last: int) -> bool:
        left = min(last - clock.now(), _LINGER)
        if left <= 0 or not self._asked.poll(math.ceil(left / clock.MILLISECOND)):
            return False
        return clock.now() < last

    def _answer(self, packet: bytes, end: int) -> bool:
        """False, with nothing signed, if it is too late for that: the front asks another."""
        try:
            job = SignJob.unpack(packet)
            key = self._current(job.description)
            if clock.now() >= end:
                return False
            answer = pack_signature(custody.sign(key, job.algorithm, job.data))
        except Exception as error:
            self._let_go()
            answer = pack_answer(_refused(error))
        self._stream.send(answer)
        return True

    def _current(self, description: str) -> ParsedKey:
        """The key of that identity as it is held now.  Raises KeyError if it isn't."""
        sealed = self._safe.shelf.entries()[description]
        # Each has a nonce of its own, so that only the very same are the same.
        if sealed != self._sealed:
            self._let_go()
            self._key = _opened(sealing_key(self._safe.keyring), description, sealed)
            self._sealed = sealed
        return self._key

    def _let_go(self) -> None:
        self._sealed = self._key = None

    def _rehearse(self) -> None:
        """What a burst does but for looking at keys, so that its memory is there when it begins."""
        for opener, sealed, algorithm in _throwaways():
            if algorithm == _UNREHEARSED:
                continue
            job = SignJob.unpack(SignJob(PREFIX, algorithm, bytes(256)).pack())
            key = _opened(bytearray(opener), PREFIX, sealed)
            pack_signature(custody.sign(key, job.algorithm, job.data))
        self._asked.poll(0)
        clock.now()


def _refused(error: Exception) -> Refused:
    if isinstance(error, KernelKeyError):
        return Refused.because(error, "the sealed key can't be opened: ")
    if isinstance(error, KeyError):
        return Refused(Cause.CHANGED, "the sealed key is gone")
    # Not its text: it could show values of the key.
    return Refused(Cause.FAULT, f"the sealed key can't sign: {type(error).__name__}")


def _opened(opener: bytearray, description: str, sealed: bytes) -> ParsedKey:
    """Raises ValueError.  What can be overwritten of what was opened, and of `opener`, is."""
    payload = custody.unseal(opener, description, sealed)
    syscalls.overwrite(opener)
    key = custody.parse(payload)
    syscalls.overwrite(payload)
    return key
