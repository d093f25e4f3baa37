"""What request-key(8) starts kagent-provision for: one key that is under construction."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import log
from ..confine.memory import lock_memory
from ..custody.configured import Failure
from ..keyctl import KernelKeyError, Key, Permission, listed, mask, syscalls
from .backends import NotDelivered
from .policy import POLICY_FILE, Asker, Policy, PolicyError

# What the receiver may do with it: find it, which is what signing takes, and see how long it lives.
_PERMISSIONS = mask(possessor=Permission.SEARCH | Permission.VIEW)

# .request_key_auth, as far as /proc/keys shows a type.
_AUTHORISATION = ".request_"

# For who asks again at once: a backend that fails is not to be hammered.
_SECONDS_OF_REFUSAL = 10

# After that the kernel ends this process, and says by itself that there is no such key.
_SECONDS = 115


# At once for one user: everybody can have the kernel start as many of these as they like.
_MOST_AT_ONCE = 4
_LOCKS = Path("/run/kagent-provision")


def create(serial: int) -> int:
    """Give that key a payload, or say why there is none; the exit code.

    Raises KernelKeyError if this process has no authority over the key.
    """
    signal.alarm(_SECONDS)
    syscalls.assume_authority(serial)
    about = Key(serial).describe()
    asker = Asker(about.uid, _program(_asking_process(serial)))
    told = f"{about.description} for {asker.name} by {asker.program or 'an unknown program'}"
    try:
        given = _deliver(serial, about.description, asker)
    except NotDelivered as error:
        log.warning(f"refused {told}: {error}")
        syscalls.reject(serial, _SECONDS_OF_REFUSAL, error.failure, 0)
        return 1
    log.info(f"delivered {told}: {given}")
    return 0


def _deliver(serial: int, description: str, asker: Asker) -> str:
    """What was given, for the log."""
    try:
        policy = Policy.read(POLICY_FILE)
    except PolicyError as error:
        raise NotDelivered(Failure.FAILED, str(error)) from error
    rule = policy.rule_for(description, asker)
    if rule is None:
        raise NotDelivered(Failure.DENIED, f"no rule in {POLICY_FILE} permits it")
    with _turn(asker.uid), open(os.devnull, "wb") as nowhere:
        # Late, since most of a helper's time and memory is what this imports.
        from . import delivery

        lock_memory()
        # A program's complaints could show what it handles.
        delivered = delivery.fetch(rule, nowhere.fileno())
    try:
        # First the permissions: after that, who asked can't change the rest any more.
        syscalls.setperm(serial, _PERMISSIONS)
        syscalls.set_timeout(serial, rule.lifetime)
        syscalls.instantiate(serial, delivered.payload, 0)
    except KernelKeyError as error:
        raise NotDelivered(Failure.FAILED, f"the kernel refused: {error}") from error
    fingerprint = delivered.public.fingerprint()
    return f"{fingerprint} by rule {rule.number}, for {rule.lifetime} seconds"


@contextmanager
def _turn(uid: int) -> Iterator[None]:
    """One of the few turns that a user has at once.  Raises NotDelivered if none is free."""
    _LOCKS.mkdir(mode=0o700, exist_ok=True)
    for number in range(_MOST_AT_ONCE):
        with (_LOCKS / f"{uid}-{number}").open("w") as turn:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield
            return
    told = f"{_MOST_AT_ONCE} keys are being fetched for this user already"
    raise NotDelivered(Failure.FAILED, told)


def _asking_process(serial: int) -> int:
    """The pid of who asks; 0 if that can't be told.

    It waits in request_key(2) until this process ends, so it is still the one.
    """
    found = []
    for line in listed():
        # `key:` and the serial that it authorises, `pid:` and who has asked for it.
        words = dict(word.split(":", 1) for word in line.told.split() if ":" in word)
        if line.type == _AUTHORISATION and words.get("key") == f"{serial:x}":
            found.append(words.get("pid", ""))
    # The true line is always there: where there is a second one, one of them is forged.
    return int(found[0]) if len(found) == 1 and found[0].isdecimal() else 0


def _program(pid: int) -> str:
    """The path of a process's executable; "" if that can't be told."""
    link = f"/proc/{pid}/exe"
    try:
        path = os.readlink(link)
        # In a mount namespace of its own, a process can have anything at any path.
        return path if os.path.samefile(link, path) else ""
    except OSError:
        return ""
