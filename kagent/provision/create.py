"""What request-key(8) starts kagent-provision for: one key that is under construction."""

from __future__ import annotations

import fcntl
import os
import signal
import sys

from .. import log
from ..confine.memory import lock_memory
from ..custody.configured import FetchFailure
from ..keyctl import KernelKeyError, Key, Permission, listed, mask, syscalls
from .backends import NotDelivered
from .policy import POLICY_FILE, Policy, PolicyError, Requester

# What the receiver may do with it: find it, which is what signing takes, and see how long it lives.
_PERMISSIONS = mask(possessor=Permission.SEARCH | Permission.VIEW)

# .request_key_auth, as far as /proc/keys shows a type.
_AUTHORISATION = ".request_"

# For who asks again at once: a backend that fails is not to be hammered.  `door` rests as long.
_SECONDS_OF_REFUSAL = 10

# After that the kernel ends this process, and says by itself that there is no such key.
_SECONDS = 115


def create(serial: int) -> int:
    """Give that key a payload, or say why there is none; the exit code.

    `door` has taken turns for it: standard input is one, which is let go when a rule permits it.

    Raises KernelKeyError if this process has no authority over the key.
    """
    signal.alarm(_SECONDS)
    syscalls.assume_authority(serial)
    about = Key(serial).describe()
    requester = Requester(about.uid, _program(_asking_process(serial)))
    told = (
        f"{about.description} for {requester.name} by {requester.program or 'an unknown program'}"
    )
    try:
        given = _deliver(serial, about.description, requester)
    except NotDelivered as error:
        log.warning(f"refused {told}: {error}")
        syscalls.reject(serial, _SECONDS_OF_REFUSAL, error.failure, 0)
        return 1
    log.info(f"delivered {told}: {given}")
    return 0


def _deliver(serial: int, description: str, requester: Requester) -> str:
    """What was given, for the log."""
    try:
        policy = Policy.read(POLICY_FILE)
    except PolicyError as error:
        raise NotDelivered(FetchFailure.FAILED, str(error)) from error
    rule = policy.rule_for(description, requester)
    if rule is None:
        raise NotDelivered(FetchFailure.DENIED, f"no rule in {POLICY_FILE} permits it")
    # The turn is for others to find out as much; a backend may take its time.
    fcntl.flock(sys.stdin.fileno(), fcntl.LOCK_UN)
    # Late, since most of a helper's time and memory is what this imports.
    from . import delivery

    lock_memory()
    # A program's complaints could show what it handles.
    with open(os.devnull, "wb") as nowhere:
        delivered = delivery.fetch(rule, nowhere.fileno())
    try:
        # First the permissions: after that, who asked can't change the rest any more.
        syscalls.setperm(serial, _PERMISSIONS)
        syscalls.set_timeout(serial, rule.lifetime)
        syscalls.instantiate(serial, delivered.payload, 0)
    except KernelKeyError as error:
        raise NotDelivered(FetchFailure.FAILED, f"the kernel refused: {error}") from error
    fingerprint = delivered.public.fingerprint()
    return f"{fingerprint} by rule {rule.number}, for {rule.lifetime} seconds"


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
