"""Configured identities: which there are, and having their keys fetched.  For workers.

request_key(2) can't be interrupted, not even by SIGKILL, as long as the kernel's helper is at work;
and a key that is still under construction holds up who uses it.  So the front leaves both to a
worker, and learns of a key when it is there and is the right one.  `ring` is the only keyring that
the worker has: nothing else can be found in a key's place, whoever has put it anywhere.
"""

from __future__ import annotations

# Those two for the configuration, which imports them where it needs them: too late for a process
# that may read no folder.
import difflib  # noqa: F401
import time
import tomllib  # noqa: F401
from collections.abc import Iterator
from typing import NamedTuple

from ..configuration.identities import Identities
from ..custody.configured import Configuration, Configured, FetchFailure, files
from ..custody.identity import Custody, Identity
from ..jobs import roles
from ..jobs.causes import Cause
from ..jobs.jobs import Fetched, Offered, Refused
from ..jobs.questions import Fetch, Offer
from ..jobs.terms import Terms
from ..keyctl import (
    AsymmetricKey,
    KernelKeyError,
    KeyExpired,
    KeyNotFound,
    KeyRevoked,
    Keyring,
    Listed,
    RsaPublicKey,
    listed,
    syscalls,
)
from ..protocol.messages import Shown
from .origins import constraints_of, place_of, source_of
from .rules import rules

# For request-key(8)'s fourth field: who asks for this and nothing else.
_CALLOUT = "kagent"


def offer(request: Offer, ring: Keyring, terms: Terms) -> Offered:
    """The job of telling which identities are configured, and what is known of their keys."""
    found: tuple[Configured, ...] = ()
    if terms.custody is not Custody.SEALED:
        found = Configuration.read(*files()).identities
    identities = Identities.read()
    sources = tuple(
        Shown(
            entry.public.blob,
            entry.comment,
            place_of(entry),
            "fetched when it is needed",
            constraints_of(entry),
            0,
        )
        for entry in identities.entries
        if entry.has_source and (entry.forwarded or not request.forwarded)
    )
    return Offered(tuple(_shown(found, ring)), sources, rules(identities), identities.notify)


class Read(NamedTuple):
    """What a fetch worker has read before it knows what a client wants."""

    configuration: Configuration
    identities: Identities


def read_all(fetched: Keyring) -> Read:
    """What is configured, for a fetch worker, which can open no file from then on.

    Raises CannotConfine.
    """
    read = Read(Configuration.read(*files()), Identities.read())
    roles.FETCH.confine(fetched)
    return read


def fetch(request: Fetch, read: Read, ring: Keyring, terms: Terms) -> Fetched | Refused:
    """The job of having a key fetched, or finding it where it has been fetched already."""
    configured = read.configuration.find(request.blob)
    if configured is None:
        if source_of(request.blob, read.identities):
            told = "it isn't fetched for a forwarded request, as its [[identity]] has it"
            return Refused(Cause.SOURCE_FORWARDED, told)
        faults = "; some lines that configure keys are of no use: see kagentctl check"
        wrong = read.configuration.faults or read.identities.faults
        return Refused(Cause.UNKNOWN_KEY, "no such key" + (faults if wrong else ""))
    if terms.custody is Custody.SEALED:
        return Refused(
            Cause.CUSTODY, "kagent was started with --custody sealed, and this key isn't to be"
        )
    try:
        key = _request(configured.description, ring)
        numbers = configured.public.numbers
        proved = RsaPublicKey(int(numbers["e"]), int(numbers["n"])).is_of(key)
    except KernelKeyError as error:
        told = f"{configured.description}: {FetchFailure.explain(error)}"
        return Refused(Cause.FETCH, told)
    if not proved:
        # It stays until its time is over: fetched anew at each request it would be no other.
        told = f"{configured.description}: a key was fetched, but not the configured one"
        return Refused(Cause.FETCH, told)
    identity = Identity(configured.public.blob, configured.comment, Custody.KERNEL)
    return Fetched(identity, key.serial)


def _request(description: str, ring: Keyring) -> AsymmetricKey:
    try:
        # First here: request_key(2) asks the helper again if that has refused, whatever the time
        # that the refusal was to last, unless it has refused with ENOKEY; and it doesn't give a key
        # that may not be linked, as a fetched one, to who names a keyring for it.
        return AsymmetricKey(syscalls.search(ring.serial, "asymmetric", description))
    except (KeyNotFound, KeyExpired, KeyRevoked):
        return AsymmetricKey(syscalls.request_key("asymmetric", description, _CALLOUT, ring.serial))


def _shown(identities: tuple[Configured, ...], ring: Keyring) -> Iterator[Shown]:
    keys = {about.description: key for key, about in ring.described()}
    lines = {line.key: line for line in listed()}
    firsts: dict[bytes, Configured] = {}
    for one in identities:
        firsts.setdefault(one.public.blob, one)
    for one in firsts.values():
        line = lines.get(keys[one.description]) if one.description in keys else None
        state, expires = _state(one, line, ring)
        why = f"fetched as {one.description} when it is needed; {state}"
        yield Shown(one.public.blob, one.comment, Custody.KERNEL, why, (), expires)


def _state(one: Configured, line: Listed | None, ring: Keyring) -> tuple[str, int]:
    """What became of its key, and when it ends, in seconds since 1970, or 0."""
    left = line.seconds_left if line else 0
    if line is None or left == 0:
        return "not fetched yet", 0
    if line.under_construction:
        return "being fetched", 0
    expires = 0 if left is None else int(time.time()) + left
    if not line.negative:
        return "fetched", expires
    try:
        syscalls.search(ring.serial, "asymmetric", one.description)
    except KernelKeyError as error:
        return f"refused: {FetchFailure.explain(error)}", expires
    return "not fetched yet", 0
