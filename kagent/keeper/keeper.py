"""The keeper: holds the listening socket and the keyrings, keeps a front running, forks workers.

It reads nothing that a client sent and no key.  It lives as long as the agent does.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, NoReturn, TypeAlias

from .. import log
from ..confine import forking, memory, process
from ..confine.seccomp import CannotConfine
from ..custody import clock, kernel
from ..custody.device import Handle
from ..custody.identity import Custody, with_deadline
from ..custody.rings import KeeperRings, Rings, destroy_in, make_sealing_key
from ..jobs import roles
from ..jobs.causes import Cause, cause_of
from ..jobs.jobs import (
    HEADER_LENGTH,
    IDLE,
    LEFT,
    LEFT_OF_SOURCE,
    LONGEST_JOB,
    LONGEST_KEY,
    NO_WORKERS,
    UNUSED,
    WORKERS_COME,
    WORKERS_ON_DEMAND,
    Answer,
    Done,
    Job,
    Kind,
    Refused,
    pack_answer,
)
from ..jobs.roles import Role
from ..jobs.sockets import Sockets, given_up
from ..jobs.terms import Terms
from ..keyctl import KernelKeyError, Keyring
from .foreground import READY, Tell
from .listener import ENDING
from .tokens import Token, Tokens

# Five fronts in a row that lived less than a second: the next one won't do better, or not at once.
_SHORT_LIFE = 1.0
_MOST_SHORT_LIVES = 5

# More than this at once are no user's doing.  The front lets fewer come, so that one who wants
# many keeps nobody out; this is for a front that is somebody else's.
_MOST_LOADS = 24
_MOST_ERRANDS = 80

# A persistent keyring ends three days after it was last asked for.
_RENEWAL_SECONDS = 3600.0
# How long nobody asks for anything when an agent that has just started goes on preparing.
_MOMENT = 0.05
# When a front is tried again that could not be started, or didn't live long; and what else could
# not be done for lack of memory.
_RETRY_SECONDS = 0.5
# How long it may go unnoticed that a login has ended, and keys have to end with it; or that the
# machine has slept, which poll(2) doesn't count, and keys have come to their end meanwhile.
_LOOK_SECONDS = 5.0

_MOST_PASSED = 4  # descriptors, with a job
_DESCRIPTOR = struct.Struct("i")
_NO_JOB = memoryview(bytes(LONGEST_JOB))

_SIGNALS = (*ENDING, signal.SIGCHLD, signal.SIGUSR1)

# As it is at the start: any program of the user can lower the limit, by prlimit(2), and what is
# open stays so.
_, _MOST_DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)


# The rings that the front shares, the listening socket, and its side of the sockets.
Front: TypeAlias = Callable[[Rings, socket.socket, Sockets], NoReturn]


class _Child(NamedTuple):
    """`ended` is called with its exit code, negative for a signal."""

    name: str
    ended: Callable[[int], None]


class _Load(NamedTuple):
    """A key on its way; `bound` is whether its connection is, to a host.

    `answer` is the pipe for whose end the front waits, and so for what the keeper has to do after
    the worker's end; what is to be sealed, or a token's handle or PIN, comes through `handover`.
    """

    front: int
    number: int
    answer: int
    inbox: Keyring | None
    handover: socket.socket
    bound: bool


class _Brought(NamedTuple):
    """What a load has brought, until the front decides about it."""

    custody: Custody
    content: bytes = b""
    inbox: Keyring | None = None
    token: Token | None = None


class _End(NamedTuple):
    """When an identity ends, in nanoseconds of CLOCK_BOOTTIME; 0 for never.

    With each use it is put off: to `idle` from then, but never beyond `latest`.
    """

    at: int = 0
    idle: int = 0
    latest: int = 0

    def used(self) -> _End:
        """As it is after a use now."""
        ends = [end for end in (clock.now() + self.idle, self.latest) if end]
        return self._replace(at=min(ends)) if self.idle else self


class _Replaced(NamedTuple):
    """What a load takes the place of, until the front has done the rest of that, or goes back.

    It goes on to its `end` as if there were no load.  `custody` is the new key's, None if there is
    no new record.
    """

    custody: Custody | None
    end: _End


class Keeper:
    """One agent, from the listening socket to the signal that ends it."""

    def __init__(
        self,
        listener: socket.socket,
        rings: KeeperRings,
        terms: Terms,
        front: Front,
        tell: Tell,
    ) -> None:
        """`front` is what the front does, for its whole life; `tell` is told how the agent is."""
        self._listener = listener
        self._rings = rings
        self._terms = terms
        self._run_front = front
        self._tell = tell
        self._is_ready = False
        self._is_prepared = False
        self._prepares_ahead = False  # when nobody asks for anything
        self._sockets: Sockets  # a new pair for each front
        self._children: dict[int, _Child] = {}
        self._front = 0
        self._lookout = 0
        self._signers = 0
        self._exit_code: int | None = None  # once there is a reason to end
        self._stopped = 2  # the exit code after SIGTERM
        self._front_started = 0.0
        self._short_lives = 0
        self._loads = 0  # workers
        self._errands = 0
        self._brought: dict[int, _Brought] = {}  # by the number of the load
        self._tokens = Tokens(self._dismiss)
        self._inboxes: list[Keyring] = []  # empty ones, to be used again
        self._full: list[Keyring] = []  # those that couldn't be emptied, for another try
        self._inboxes_made = 0
        # By description, of identities that end.  The kernel's own timeouts follow a clock that
        # can be set.
        self._ends: dict[str, _End] = {}
        self._replaced: dict[str, _Replaced] = {}
        self._renewed = clock.now()
        self._job = bytearray(LONGEST_JOB)  # room for one
        # Not poll(2), which refuses more than RLIMIT_NOFILE, which others can lower.
        self._watched = select.epoll()
        self._pending: set[int] = set()  # signals that have come and are not handled yet
        self._wakeup, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self, *, ignore_interrupt: bool, stopped: int) -> int:
        """Serve until a signal says to end; the exit code, which is `stopped` after SIGTERM."""
        self._stopped = stopped
        process.forbid_new_privileges()  # nor its forks
        for number in _SIGNALS:
            signal.signal(number, lambda number, frame: self._pending.add(number))
        signal.set_wakeup_fd(self._waker)
        if ignore_interrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        # Behind a filter no user can be looked up; and a uid may be no user's.
        if (home := os.path.expanduser("~")) != "~":
            os.environ.setdefault("HOME", home)
        try:
            _make_sealing_key(self._rings.sealing)
            gc.freeze()  # kept out of the collector's way, so that a fork shares the memory
            gc.enable()
            self._start_front()
            self._serve()
            assert self._exit_code is not None
            return self._exit_code
        except CannotConfine as error:
            log.error(f"processes can't be confined: {error}")
            return 1
        finally:
            self._tell("STOPPING=1")
            self._end_children()
            with suppress(KernelKeyError):
                self._rings.give_back()

    def _serve(self) -> None:
        """Until there is a reason to end."""
        while self._exit_code is None:
            control, signing, looking = (one.fileno() for one in self._sockets)
            wanted = [self._wakeup]
            if self._front:
                wanted.append(control)
                # Else it is the child that reads there.
                wanted += [signing] if not self._signers else []
                wanted += [looking] if not self._lookout else []
            ready = self._readable(wanted, self._seconds())
            if not ready and self._prepares_ahead:
                self._prepare_ahead()
            if self._wakeup in ready:
                os.read(self._wakeup, 512)
            self._do_what_is_due()
            # Before the rest: one read may have taken the marks of several signals.
            if ending := self._pending.intersection(ENDING):
                log.info(f"exiting on signal {min(ending)}")
                self._exit_code = self._stopped if signal.SIGTERM in ending else 2
                return
            if signal.SIGUSR1 in self._pending:
                self._pending.discard(signal.SIGUSR1)
                self._remove_all()
            if signal.SIGCHLD in self._pending:
                self._pending.discard(signal.SIGCHLD)
                self._reap()
                continue  # what is ready may be of a front that has ended
            if not self._front:
                self._start_front_again()
                continue
            if control in ready:
                self._take_job()
            if signing in ready:
                self._have_signers()
            if looking in ready:
                self._start_lookout()

    def _readable(self, descriptors: Sequence[int], seconds: float) -> set[int]:
        """Those of them that can be read, at the latest in so many seconds.

        None, after a moment, where the kernel can't watch them: it has no memory, or the user's
        other programs have all watched that a user may (epoll(7), max_user_watches).
        """
        try:
            for descriptor in descriptors:
                self._watched.register(descriptor, select.EPOLLIN)
            return {descriptor for descriptor, _ in self._watched.poll(seconds)}
        except OSError as error:
            log.error(f"can't watch for requests: {error}")
            time.sleep(_RETRY_SECONDS)
            return set()
        finally:
            for descriptor in descriptors:
                with suppress(FileNotFoundError):
                    self._watched.unregister(descriptor)

    def _seconds(self) -> float:
        """Until something is due, at the latest."""
        due = _MOMENT if self._prepares_ahead else _RENEWAL_SECONDS
        ends = [*self._ends.values(), *(one.end for one in self._replaced.values() if one.end.at)]
        if ends:
            left = (min(ends).at - clock.now()) / clock.SECOND
            due = min(due, max(left, 0.0), _LOOK_SECONDS)
        if not self._front or self._full:
            due = min(due, _RETRY_SECONDS)
        with suppress(KernelKeyError):  # a front that is somebody else's may have ended it
            if self._rings.shared.lent.keys():
                due = min(due, _LOOK_SECONDS)
        return due

    def _do_what_is_due(self) -> None:
        full, self._full = self._full, []
        for inbox in full:
            self._empty(inbox)
        now = clock.now()
        for description, end in list(self._ends.items()):
            if now >= end.at:
                self._end(description)
        for description, replaced in list(self._replaced.items()):
            if replaced.end.at and now >= replaced.end.at:
                self._let_go_of_replaced(description)
        try:
            self._rings.shared.follow_home()
            if now - self._renewed >= _RENEWAL_SECONDS * clock.SECOND:
                self._renewed = now
                self._rings.renew()
        except KernelKeyError as error:
            log.error(f"keyrings can't be looked after: {error}")

    def _end(self, description: str) -> None:
        del self._ends[description]
        self._replaced.pop(description, None)
        if faults := self._forget(description):
            log.error(f"a key whose time is over: {'; '.join(faults)}")
        self._keep_signers()

    def _start_front(self) -> None:
        pairs = [_socketpair() for _ in range(3)]
        self._sockets = Sockets(*(ours for ours, _ in pairs))
        theirs = Sockets(*(one for _, one in pairs))
        try:
            self._front = self._fork(
                roles.FRONT,
                partial(self._run_front, self._rings.shared, self._listener, theirs),
                [self._listener.fileno(), self._rings.records.reader.fileno()]
                + [one.fileno() for one in theirs],
                self._front_ended,
            )
        finally:
            theirs.close()
        self._front_started = time.monotonic()

    def _front_ended(self, code: int) -> None:
        self._front = 0
        self._sockets.close()
        self._dismiss(self._signers)  # they wait at the old front's sockets
        self._dismiss(self._lookout)
        self._signers = self._lookout = 0
        self._drop_all()
        for description in list(self._replaced):
            self._let_go_of_replaced(description)
        if code == IDLE:
            log.info("nothing to do: ending until the next request")
            self._exit_code = 0
            return
        short = time.monotonic() - self._front_started < _SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= _MOST_SHORT_LIVES:
            if not self._is_ready:
                log.error("the front doesn't stay up; giving up")
                self._exit_code = 1
                return
            # Whatever ends them, or whoever: the keys stay, and wait for one that lives.
            if self._short_lives == _MOST_SHORT_LIVES:
                log.warning("the fronts don't live long; another is started every half second")
            return
        log.warning("the front has ended; starting another")
        self._start_front_again()

    def _start_front_again(self) -> None:
        try:
            self._start_front()
        except OSError as error:  # no more processes, say: the keys wait for one
            log.error(f"no front can be started: {error}")
        else:
            self._keep_signers()

    def _end_front(self) -> None:
        # It is ending, or has closed what it must keep open.  Looked for without waiting for
        # SIGCHLD: until then its sockets would wake us over and over.
        if self._front:
            os.kill(self._front, signal.SIGKILL)
            self._pending.add(signal.SIGCHLD)

    def _start_lookout(self) -> None:
        looking = self._sockets.looking
        try:
            from ..workers import lookout

            if not looking.recv(1, socket.MSG_PEEK):
                self._end_front()
                return
            work = partial(lookout.run, looking)
            self._lookout = self._fork(roles.LOOKOUT, work, [looking.fileno()], self._lookout_ended)
        except (OSError, ImportError) as error:
            log.error(f"no lookout can be started: {error}")
            with suppress(OSError):
                looking.recv(1)  # that request is not going to be answered

    def _lookout_ended(self, code: int) -> None:
        self._lookout = 0
        if code == 1:
            # It didn't get so far as to read: the next would meet the same end, over and over.
            with suppress(OSError):
                self._sockets.looking.recv(1, socket.MSG_DONTWAIT)

    def _have_signers(self) -> None:
        """The front wants some, or has ended."""
        try:
            wanted = self._sockets.signing.recv(1)
        except ConnectionResetError:  # with what it hasn't read
            wanted = b""
        if wanted:
            self._keep_signers()
        else:
            self._end_front()

    def _keep_signers(self) -> None:
        """Have sign workers if there is something to sign with, and only then."""
        if not self._rings.sealed:
            self._dismiss(self._signers)
            self._signers = 0
            self._tell_of_signers(NO_WORKERS)
        elif self._front and not self._signers:
            from ..workers import sign

            signing, sealed = self._sockets.signing, self._rings.sealed.reader
            safe = sign.Safe(self._rings.sealing, sealed)
            work = partial(sign.run, signing, safe, self._terms.burst)
            kept = [signing.fileno(), sealed.fileno()]
            self._tell_of_signers(WORKERS_COME)
            try:
                self._signers = self._fork(roles.SIGNERS, work, kept, self._signers_ended)
            except OSError as error:  # no more processes, say; the next event tries again
                log.error(f"no sign workers can be started: {error}")

    def _tell_of_signers(self, whether: bytes) -> None:
        # The front has ended, with what it hasn't read or without, or it doesn't listen.
        with suppress(OSError):
            self._sockets.signing.send(whether, socket.MSG_DONTWAIT)

    def _signers_ended(self, code: int) -> None:
        self._signers = 0
        if code == UNUSED:
            self._end_front()
        elif code == IDLE:
            self._tell_of_signers(WORKERS_ON_DEMAND)
        else:
            self._keep_signers()

    def _take_job(self) -> None:
        descriptors: list[int] = []
        try:
            packet, cut_off = self._receive(descriptors)
            if not packet:
                self._end_front()
                return
            if cut_off:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            job = Job.unpack(packet[:HEADER_LENGTH])
            self._carry_out(job, packet[HEADER_LENGTH:], *descriptors)
        except (ValueError, TypeError) as error:
            log.error(f"the front sent no job: {error}")
        except (OSError, KeyError, ImportError, MemoryError) as error:
            # The front hears no answer, and goes back.
            log.error(f"a job can't be done: {str(error) or 'there is no memory'}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _receive(self, descriptors: list[int]) -> tuple[bytes, bool]:
        """What the front sends: a packet, and whether there was no room for all `descriptors`.

        Into memory that is there: where there was none for as much as a job may have, Python's
        recvmsg ended the process by a signal.  Raises OSError and MemoryError.
        """
        control, space = self._sockets.control, socket.CMSG_SPACE(_MOST_PASSED * _DESCRIPTOR.size)
        length, ancillary, flags, _ = control.recvmsg_into([self._job], space)
        descriptors += [
            descriptor
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for (descriptor,) in _DESCRIPTOR.iter_unpack(
                data[: len(data) - len(data) % _DESCRIPTOR.size]
            )
        ]
        job = memoryview(self._job)[:length]
        try:
            return bytes(job), bool(flags & socket.MSG_CTRUNC)
        finally:
            job[:] = _NO_JOB[:length]  # forks would inherit it

    def _carry_out(self, job: Job, record: bytes, *descriptors: int) -> None:
        match job.kind:
            case Kind.LOAD:
                self._load(job, *descriptors)
            case Kind.KEEP | Kind.GO_BACK | Kind.DROP | Kind.FORGET | Kind.FORGET_ALL:
                self._change(job, record, *descriptors)
            case Kind.READY:
                self._be_ready()
            case Kind.USED:
                self._put_off(job.description)
            case Kind.TOKEN:
                self._ask_token(job, *descriptors)
            case _:
                if self._errands < _MOST_ERRANDS:
                    send = self._fetch if job.kind is Kind.SOURCE else self._send_out
                    send(job, *descriptors)
                else:
                    log.warning("too much is asked for at once; refused")

    def _be_ready(self) -> None:
        """Tell who waits for it, after the first front's word."""
        if not self._is_ready:
            self._is_ready = self._prepares_ahead = True
            self._tell(READY)

    def _prepare_ahead(self) -> None:
        self._prepares_ahead = False
        try:
            self._prepare()
        # Which may be an ImportError, where a library can't be opened.  What needs it tries again,
        # and is refused while this is so.
        except (OSError, ImportError) as error:
            log.error(f"not prepared for keys: {error}")

    def _prepare(self) -> None:
        """Import and compile once what forks need, so that each is ready to work.

        When the first that ask have their answers, and before any key comes: nothing is imported
        any more once there is one, since others may have changed it by then.
        """
        if self._is_prepared:
            return
        from ..workers import (  # noqa: F401  # noqa: F401
            asking,
            bind,
            certify,
            device,
            errands,
            learn,
            load,
            lookout,
            notify,
            opening,
            seal,
            sign,
            source,
        )

        if self._terms.behind:
            from ..workers import relay  # noqa: F401
        sign.prepare()
        opening.prepare()
        for role in roles.CHILDREN:
            role.prepare(self._rings)
        gc.freeze()
        memory.give_back(memory.code_areas())  # the keeper itself signs nothing
        # Not sooner: where it fails, descriptors having been taken away, say, no key comes either.
        self._is_prepared = True

    def _send_out(self, job: Job, *descriptors: int) -> None:
        from ..workers.errands import ERRANDS, run

        if job.kind is not Kind.OFFER:  # the first list of keys has one, and needs no more
            self._prepare()
        errand = ERRANDS[job.kind]
        work = partial(run, errand, job, descriptors, self._rings, self._terms)
        handles = [self._rings.handles.reader.fileno()] if job.kind is Kind.DEVICE else []
        self._fork(errand.role, work, [*descriptors, *handles], self._errand_ended)
        self._errands += 1

    def _errand_ended(self, code: int) -> None:
        self._errands -= 1

    def _fetch(self, job: Job, request: int, client: int, answer: int) -> None:
        """Have a key got from its source, and then loaded as any other."""
        from ..workers import source

        self._prepare()
        waiting = os.dup(answer)
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            os.close(waiting)
            raise
        with theirs:
            work = partial(source.run, job, request, client, answer, theirs)
            kept = [request, client, answer, theirs.fileno()]
            ended = partial(self._fetched, job, self._front, waiting, ours)
            try:
                self._fork(roles.SOURCE, work, kept, ended)
            except OSError:
                os.close(waiting)
                ours.close()
                raise
        self._errands += 1

    def _fetched(self, job: Job, front: int, waiting: int, left: socket.socket, code: int) -> None:
        self._errands -= 1
        try:
            # The number is that front's: the next has its own.
            if code == LEFT_OF_SOURCE and front == self._front and not given_up(waiting):
                self._load(job._replace(body_length=0), left.fileno(), waiting)
        except OSError as error:
            log.error(f"no load worker can be started: {error}")
        finally:
            os.close(waiting)
            left.close()

    def _load(self, job: Job, client: int, answer: int) -> None:
        from ..workers import load

        if self._loads + len(self._brought) >= _MOST_LOADS:
            log.warning("too many keys are being loaded at once; refused")
            return
        self._prepare()
        if job.locked:
            self._turn_down(job, client, answer, Cause.LOCKED, "the agent is locked")
            return
        waiting = os.dup(answer)
        try:
            handover, theirs = _socketpair()
        except OSError:
            os.close(waiting)
            raise
        inbox = self._inbox()
        one = _Load(self._front, job.number, waiting, inbox, handover, job.bound)
        way = load.Way(inbox, theirs, kernel.room(os.getuid()) != 0)
        work = partial(load.run, job, client, answer, way, self._terms)
        kept = [client, answer, theirs.fileno()]
        ended = partial(self._load_ended, one)
        otherwise = partial(load.turn_down, job, client, answer)
        try:
            self._fork(roles.LOAD, work, kept, ended, inbox=inbox, otherwise=otherwise)
        except OSError:
            self._load_done(one)
            raise
        finally:
            theirs.close()
        self._loads += 1

    def _inbox(self) -> Keyring | None:
        """An empty keyring for a load; None if the user may have no more keys."""
        if self._inboxes:
            return self._inboxes.pop()
        try:
            self._inboxes_made += 1
            return self._rings.new_inbox(self._inboxes_made)
        except KernelKeyError as error:
            log.warning(f"no keyring for a key: {error}")
            return None

    def _turn_down(self, job: Job, client: int, answer: int, cause: Cause, reason: str) -> None:
        from ..workers import load

        work = partial(load.turn_down, job, client, answer, cause, reason)
        self._fork(roles.REFUSE, work, [client, answer], self._turned_down)
        self._loads += 1

    def _turned_down(self, code: int) -> None:
        self._loads -= 1

    def _load_ended(self, one: _Load, code: int) -> None:
        self._loads -= 1
        kinds = {code: custody for custody, code in LEFT.items()}
        match kinds.get(code):
            case Custody.KERNEL:
                self._has_brought(one, _Brought(Custody.KERNEL, inbox=one.inbox))
            case Custody.DEVICE:
                handle = Handle(from_remote=one.bound, left=_received(one.handover))
                self._has_brought(one, _Brought(Custody.DEVICE, handle.write()))
            case Custody.SEALED:
                self._seal(one)
            case Custody.TOKEN:
                self._insert(one)
            case None:  # it has left no key, or did not get to its end
                self._load_done(one)

    def _seal(self, one: _Load) -> None:
        from ..workers import seal

        try:
            ours, theirs = _socketpair()
            with theirs:
                work = partial(seal.run, one.handover, theirs, self._rings.sealing)
                kept = [one.handover.fileno(), theirs.fileno()]
                self._fork(roles.SEAL, work, kept, partial(self._sealed, one, ours))
        except OSError as error:
            log.error(f"no seal worker can be started: {error}")
            self._load_done(one)
        else:
            self._loads += 1

    def _sealed(self, one: _Load, ours: socket.socket, code: int) -> None:
        self._loads -= 1
        with ours:
            if code == 0:
                self._has_brought(one, _Brought(Custody.SEALED, _received(ours)))
            else:
                self._load_done(one)

    def _insert(self, one: _Load) -> None:
        """Have a token process take what was left, and answer the front."""
        from ..workers import token

        if given_up(one.answer):  # no PIN is tried that nobody waits for
            self._load_done(one)
            return
        if self._tokens.full:
            told = "keys of too many tokens' libraries are held already"
            _answer(one.answer, Refused(Cause.TOO_MANY, told))
            self._load_done(one)
            return
        try:
            ours, theirs = _socketpair()
            with theirs:
                given = token.Given(one.handover, one.answer, theirs, one.bound, self._terms)
                kept = [one.handover.fileno(), one.answer, theirs.fileno()]
                started = Token(0, ours)
                ended = partial(self._token_ended, started)
                started.pid = self._fork(roles.TOKEN, partial(token.run, given), kept, ended)
        except OSError as error:
            log.error(f"no token process can be started: {error}")
            self._load_done(one)
        else:
            self._tokens.add(started)
            self._has_brought(one, _Brought(Custody.TOKEN, token=started))
            if one.number not in self._brought:  # nobody waits for it any more
                self._tokens.dismiss_unused(started)

    def _token_ended(self, token: Token, code: int) -> None:
        self._tokens.has_ended(token)

    def _ask_token(self, job: Job, request: int, answer: int) -> None:
        """Pass a request for a signature on, or say why that can't be."""
        cause = Cause.TOKEN_GONE
        told = "the process that talks to its token has ended; ssh-add -s loads its keys again"
        try:
            if self._tokens.ask(job.description, job.pack(), [request, answer]):
                return
        except BlockingIOError:
            cause = Cause.TOO_MANY
            told = "too many signatures by this token are waited for"
        except OSError as error:
            log.warning(f"a token process can't be asked: {error}")
        _answer(answer, Refused(cause, told))

    def _has_brought(self, one: _Load, brought: _Brought) -> None:
        if one.front == self._front and not given_up(one.answer):
            self._drop(one.number)  # a front that is somebody else's may have two of that number
            self._brought[one.number] = brought
        self._load_done(one)

    def _load_done(self, one: _Load) -> None:
        """What is not to be waited for any more goes."""
        os.close(one.answer)
        one.handover.close()
        brought = self._brought.get(one.number)
        if one.inbox and not (brought and brought.inbox == one.inbox):
            self._empty(one.inbox)

    def _drop_all(self) -> None:
        for number in list(self._brought):
            self._drop(number)

    def _drop(self, number: int) -> None:
        brought = self._brought.pop(number, None)
        if brought and brought.inbox:
            self._empty(brought.inbox)
        if brought and brought.token:
            self._tokens.dismiss_unused(brought.token)

    def _empty(self, inbox: Keyring) -> None:
        """Throw away what is in it, and have it for another load."""
        if faults := destroy_in(inbox):
            log.error(f"a key that isn't wanted can't be dropped yet: {'; '.join(faults)}")
            self._full.append(inbox)
        else:
            self._inboxes.append(inbox)

    def _change(self, job: Job, record: bytes, answer: int) -> None:
        """What the front wants done with what only the keeper has."""
        try:
            faults = self._changed(job, record)
            done: Answer = Refused(Cause.STILL_THERE, "; ".join(faults)) if faults else Done()
        except ValueError as error:
            done = Refused(Cause.FAULT, str(error))
        except OSError as error:
            done = Refused(cause_of(error), f"the kernel refused: {error}")
        self._keep_signers()
        _answer(answer, done)

    def _changed(self, job: Job, record: bytes) -> list[str]:
        """What could not be done, in words."""
        match job.kind:
            case Kind.KEEP:
                self._keep(job, record)
            case Kind.GO_BACK:
                return self._go_back(job, record)
            case Kind.DROP:
                self._drop(job.number)
            case Kind.FORGET:
                faults = self._forget(job.description, job.custody)
                if job.custody is None:
                    self._ends.pop(job.description, None)
                if job.custody is None or not faults:  # else it is gone back to
                    self._let_go_of_replaced(job.description)
                return faults
            case Kind.FORGET_ALL:
                self._ends.clear()
                self._replaced.clear()
                self._tokens.clear()
                self._rings.forget_all()
        return []

    def _keep(self, job: Job, record: bytes) -> None:
        """Hold what a load has brought, under a new record if there is one; all of it or nothing.

        What was held in another custody stays until the front says FORGET.
        """
        brought = self._brought.get(job.number)
        if brought is None:
            raise ValueError("it could not be sealed, was given up, or all was removed meanwhile")
        if not brought.token:  # of which several keys may be kept, until the front says DROP
            del self._brought[job.number]
        description, rings = job.description, self._rings
        try:
            self._check(brought, job, record)
            self._let_go_of_replaced(description)
            again = self._has(brought.custody, description)
            if brought.token:
                self._tokens.keep(description, brought.token)
            elif brought.inbox:
                rings.empty_inbox(brought.inbox, description)
            else:
                rings.take(brought.custody, description, brought.content)
            try:
                # Last: what it says is there by then.
                if record:
                    rings.records.put(description, record)
            except (OSError, MemoryError):
                if not again:
                    self._tokens.forget(description)
                    rings.remove(brought.custody, description)
                raise
        finally:
            if brought.inbox:
                self._empty(brought.inbox)
        before = self._ends.get(description, _End())
        self._replaced[description] = _Replaced(job.custody if record else None, before)
        if record:
            self._set_end(description, _End(job.deadline, job.idle, job.deadline).used())

    def _has(self, custody: Custody, description: str) -> bool:
        """Whether there is something in that custody that signs for that identity."""
        if custody is Custody.TOKEN:
            return self._tokens.sign_for(description)
        return self._rings.has(custody, description)

    def _forget(self, description: str, but: Custody | None = None) -> list[str]:
        """Have nothing sign for that identity, but in that custody; the faults, in words."""
        if but is not Custody.TOKEN:
            self._tokens.forget(description)
        return self._rings.forget(description, but)

    def _check(self, brought: _Brought, job: Job, record: bytes) -> None:
        """The terms that hold for all keys, where no load worker says what they are."""
        # Others' keys have their records beside them.  And for records there is no endless room.
        if not record and job.custody is not Custody.KERNEL:
            raise ValueError(f"there is no record of a key of custody {job.custody}")
        # Else a load worker could give another key that is held the constraints of its answer.
        if brought.custody is not job.custody:
            raise ValueError(f"a load has left a key of custody {brought.custody}")
        if self._terms.custody not in (None, job.custody):
            raise ValueError(f"kagent was started with --custody {self._terms.custody}")
        if self._terms.lifetime and not job.deadline:
            raise ValueError("it has no lifetime, and kagent was started with -t")

    def _go_back(self, job: Job, record: bytes) -> list[str]:
        """After a load that failed: hold what it took the place of, to the end that that had.

        Or go on to hold it, where the load didn't get so far.
        """
        description = job.description
        replaced = self._replaced.get(description)
        if not replaced and self._is_held_as(description, record):
            return []
        if not (replaced and job.custody and self._has(job.custody, description)):
            return ["what was held before was removed meanwhile, or its time is over"]
        self._rings.records.put(description, record)
        del self._replaced[description]
        ends = [one for one in (replaced.end.at, job.deadline) if one]
        self._set_end(description, replaced.end._replace(at=min(ends, default=0)))
        # What may be left of the load signs for nobody: no record is of it.
        for fault in self._forget(description, job.custody):
            log.error(fault)
        return []

    def _is_held_as(self, description: str, record: bytes) -> bool:
        """Whether that is the record, whenever it says that the identity ends."""
        held = self._rings.records.entries().get(description)
        return held is not None and with_deadline(held, 0) == with_deadline(record, 0)

    def _let_go_of_replaced(self, description: str) -> None:
        replaced = self._replaced.pop(description, None)
        if replaced and replaced.custody:
            for fault in self._forget(description, replaced.custody):
                log.error(fault)
            self._keep_signers()

    def _set_end(self, description: str, end: _End) -> None:
        self._ends.pop(description, None)
        if end.at:
            self._ends[description] = end

    def _put_off(self, description: str) -> None:
        """Let an identity that ends when it isn't used stay, as it was told when it came."""
        end = self._ends.get(description)
        if end and end.idle:
            self._ends[description] = end = end.used()
            records = self._rings.records
            records.put(description, with_deadline(records[description], end.at))

    def _remove_all(self) -> None:
        self._ends.clear()
        self._replaced.clear()
        self._drop_all()
        self._tokens.clear()
        faults = self._rings.remove_all()
        self._keep_signers()
        log.info("all keys were removed, as SIGUSR1 asks")
        for fault in faults:
            log.error(fault)
        # What others have loaded it has to read, which isn't for this process.
        if self._front:
            os.kill(self._front, signal.SIGUSR1)

    def _fork(
        self,
        role: Role,
        work: Callable[[], NoReturn],
        kept: Sequence[int],
        ended: Callable[[int], None],
        *,
        inbox: Keyring | None = None,
        otherwise: Callable[[Cause, str], NoReturn] | None = None,
    ) -> int:
        """Start a child of that kind, that has no descriptors but those; its pid.

        If it can't be what it must be, it does `otherwise`, as a refusing worker, with the reason.
        Only the keeper comes back.
        """
        keeper = os.getpid()
        child = forking.fork()
        if child:
            self._children[child] = _Child(role.title, ended)
            return child
        try:
            process.die_with_parent()
            if os.getppid() == keeper:
                signal.set_wakeup_fd(-1)
                for number in (*ENDING, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_DFL)
                for number in (signal.SIGINT, signal.SIGUSR1):  # a terminal's is for the keeper
                    signal.signal(number, signal.SIG_IGN)
                _close_all_but(kept)
                log.reconnect()
                try:
                    role.assume(self._rings, inbox)
                except KernelKeyError as error:
                    log.error(f"the {role.title} can't have its keyrings: {error}")
                    if otherwise:
                        roles.REFUSE.assume(self._rings)
                        otherwise(cause_of(error), str(error))
                else:
                    work()
        except CannotConfine as error:
            log.error(f"the {role.title} can't be confined: {error}")
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if child := self._children.pop(pid, None):
                if code < 0:
                    log.warning(f"the {child.name} ended by signal {-code}")
                child.ended(code)

    def _dismiss(self, pid: int) -> None:
        """End a child that isn't needed any more; nothing follows from its end."""
        if self._children.pop(pid, None):
            os.kill(pid, signal.SIGKILL)

    def _end_children(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in (self._front, self._signers):
            if pid in self._children:
                os.waitpid(pid, 0)
        # The others may be where only others can let them go: in request_key(2), or at a file that
        # is far away.


def _make_sealing_key(keyring: Keyring) -> None:
    """By a process that ends: no other is ever to have its bytes.  Raises KernelKeyError."""
    child = forking.fork()
    if child == 0:
        try:
            make_sealing_key(keyring)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise KernelKeyError(errno.ENOKEY, "the key that opens sealed keys can't be made")


def _socketpair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _received(ours: socket.socket) -> bytes:
    """What has come through `ours`, from a process that has ended."""
    return ours.recv(2 * LONGEST_KEY, socket.MSG_DONTWAIT)


def _answer(pipe: int, answer: Answer) -> None:
    """Not to wait, for a front that is somebody else's."""
    os.set_blocking(pipe, False)
    with suppress(BrokenPipeError, BlockingIOError):  # it has ended, or doesn't read
        os.write(pipe, pack_answer(answer))


def _close_all_but(kept: Sequence[int]) -> None:
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, _MOST_DESCRIPTORS)
