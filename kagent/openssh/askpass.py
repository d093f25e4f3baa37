"""Asking and telling the user through ssh-askpass, as OpenSSH does (readpass.c)."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from .. import log, programs
from ..confine.process import die_with_parent
from ..protocol.refusals import Cause, Explained

_DEFAULT = "/usr/bin/ssh-askpass"
_LONGEST = 1023  # bytes of an answer
_AS_A_PIPE = 32768  # bytes, which the kernel doubles: who writes more is waited for, socket(7)
_GRACE = 1.0  # seconds in which a window may close by itself
_TICK = 0.02  # seconds between two looks whether it has ended
_DISPLAYS = "set DISPLAY or WAYLAND_DISPLAY, or SSH_ASKPASS_REQUIRE=force,"

# sshd's LoginGraceTime: a login that is allowed later than that comes too late.
_SECONDS = 120.0


class CannotAsk(Explained):
    """There is no way to ask the user; the text says what to set."""


class Unanswered(Explained):
    """The user was asked, and didn't say yes; the text says what happened instead."""


class Patience(NamedTuple):
    """How long to wait for the user.

    Of the descriptors `gone`, one has an error or a hang-up once nobody wants the answer any more:
    a pipe that nobody reads from, or a socket whose other end is closed.  poll(2).
    """

    gone: tuple[int, ...]
    seconds: float = _SECONDS


def usable(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ssh-askpass may be run: there is a display, or the user says so."""
    display = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    required = _requirement(environment)
    return required == "force" or (bool(display) and required != "never")


def preferred() -> bool:
    """Whether ssh-askpass is to be run even where there is a terminal."""
    return usable() and _requirement() in ("force", "prefer")


def program(environment: Mapping[str, str] = os.environ) -> str:
    """The ssh-askpass to run, a path or a name."""
    return environment.get("SSH_ASKPASS", _DEFAULT)


def ask(prompt: str, hint: str = "", patience: Patience | None = None) -> bytes:
    """The line that ssh-askpass prints; `hint`, if any, is its SSH_ASKPASS_PROMPT.

    With `patience`, it runs in a session of its own, and nothing of that outlives this call.
    Raises OSError if there is no such program, and Unanswered.
    """
    alone = patience is not None
    with _askpass(prompt, hint, patience, alone=alone) as running:
        said = running.read()
        code = running.exit_code()
    if code:
        raise Unanswered(Cause.DENIED, f"the user said no: {program()} ended with {code}")
    return said.split(b"\n")[0].split(b"\r")[0].split(b"\0")[0]


def confirm(question: str, patience: Patience) -> None:
    """Return if the user says yes; an empty answer is a yes too.  Raises CannotAsk, Unanswered."""
    if ask_without_terminal(question, "confirm", patience).lower() not in (b"", b"yes"):
        raise Unanswered(Cause.DENIED, "the user said no")


def secret(prompt: str, patience: Patience | None = None) -> str:
    """What the user types; empty if that is nothing, or if the user can't be asked."""
    try:
        return os.fsdecode(ask_without_terminal(prompt, "", patience))
    except (CannotAsk, Unanswered) as error:
        log.warning(str(error))
        return ""


@contextmanager
def notice(text: str, done: str) -> Iterator[None]:
    """Show `text` as long as the block runs: on our terminal, or else in a window if that can be.

    On the terminal, `done` follows if the block ends well.
    """
    if os.isatty(2):
        sys.stderr.write(f"\r{text}\r\n")
        yield
        sys.stderr.write(f"\r{done}\r\n")
        return
    try:
        window = _askpass(text, "none") if usable() else None
    except OSError as error:
        log.warning(f"the user can't be told: {program()}: {error.strerror}")
        window = None
    with window or nullcontext():
        yield


def _askpass(prompt: str, hint: str, patience: Patience | None = None, **options: Any) -> Running:
    environment = {**os.environ, "SSH_ASKPASS_PROMPT": hint} if hint else None
    return Running([program(), prompt], environment, patience, **options)


class Running:
    """A program that runs, whose answer is waited for.

    `alone` is in a session of its own, so that all of it can be ended.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: dict[str, str] | None = None,
        patience: Patience | None = None,
        *,
        errors: int | None = None,
        folder: str | None = None,
        alone: bool = True,
    ) -> None:
        """Raises OSError."""
        self._gone = patience.gone if patience else ()
        self._deadline = time.monotonic() + patience.seconds if patience else None
        # Not a pipe: any program of the user's could open that anew, in /proc/PID/fd of who writes
        # to it, and read what is meant for us.
        self._answer, theirs = socket.socketpair()
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AS_A_PIPE)
            self._process = programs.start(
                words,
                stdin=subprocess.DEVNULL if alone else None,
                stdout=theirs,
                stderr=errors,
                env=environment,
                cwd=folder,
                start_new_session=alone,
                preexec_fn=die_with_parent if alone else None,
            )
        self._target = -self._process.pid if alone else self._process.pid

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        if self._process.returncode is None:
            self._end()

    def read(self, most: int = _LONGEST) -> bytes:
        """What it prints, until it has printed so many bytes."""
        said = b""
        with self._answer:
            while len(said) < most:
                self._wait_for(self._answer.fileno())
                chunk = self._answer.recv(most - len(said))
                if not chunk:
                    break
                said += chunk
        return said

    def exit_code(self) -> int:
        """How it ends; negative for a signal."""
        # Mostly it has ended: what it prints it prints last.
        while not self._has_ended():
            self._wait_for(None, _TICK)
        return self._process.wait()

    def _wait_for(self, descriptor: int | None, most: float = math.inf) -> None:
        """Until there is something to read, or for `most` seconds."""
        poll = select.poll()
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        for gone in self._gone:
            poll.register(gone, 0)  # errors and hang-ups are reported in any case
        left = min(most, self._deadline - time.monotonic() if self._deadline else math.inf)
        ready = dict(poll.poll(None if left == math.inf else math.ceil(max(0.0, left) * 1000)))
        if ready.keys() & {*self._gone}:
            raise Unanswered(Cause.UNANSWERED, "the client went away before the user answered")
        if self._deadline and time.monotonic() >= self._deadline and not ready:
            raise Unanswered(Cause.UNANSWERED, "the user didn't answer in time")

    def _has_ended(self) -> bool:
        # By looking, as there are containers in which pidfd_open(2) is refused; and without
        # reaping it: its number must not go to another while there may be more of it to end.
        how = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self._process.pid, how) is not None

    def _end(self) -> None:
        # Not reaped before the second signal: until then nobody else can get its number.
        os.kill(self._target, signal.SIGTERM)
        until = time.monotonic() + _GRACE
        while not self._has_ended() and time.monotonic() < until:
            time.sleep(_TICK)
        os.kill(self._target, signal.SIGKILL)
        self._process.wait()


def ask_without_terminal(prompt: str, hint: str, patience: Patience | None) -> bytes:
    """As `ask`, where there is a display, or the user says so.  Raises CannotAsk, Unanswered."""
    if not usable():
        never = _requirement() == "never"
        what = "unset SSH_ASKPASS_REQUIRE=never" if never else _DISPLAYS
        raise CannotAsk(
            Cause.CANNOT_ASK, f"the user can't be asked: {what} before kagent is started"
        )
    try:
        return ask(prompt, hint, patience)
    except OSError as error:
        raise CannotAsk(
            Cause.NO_ASKPASS,
            f"the user can't be asked: {program()}: {error.strerror}; install ssh-askpass, or set "
            "SSH_ASKPASS to another program before kagent is started",
        ) from error


def _requirement(environment: Mapping[str, str] = os.environ) -> str:
    return environment.get("SSH_ASKPASS_REQUIRE", "").lower()
