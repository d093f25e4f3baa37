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

from ..configuration.identities import Identities
from ..custody.configured import Configuration, Configured, FetchFailure, files
from ..custody.identity import Custody, Identity
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
from ..openssh.times import seconds
from ..protocol.messages import Shown
from .origins import constraints_of, place_of, source_of

# For request-key(8)'s fourth field: who asks for this and nothing else.
_CALLOUT = "kagent"


def offer(request: Offer, ring: Keyring, terms: Terms) -> Offered:
    """The job of telling which identities are configured, and what is known of their keys."""
    sources = tuple(
        Shown(
            entry.public.blob,
            entry.comment,
            place_of(entry),
            "fetched when it is needed",
            constraints_of(entry),
            0,
        )
        for entry in Identities.read().entries
        if entry.has_source and (entry.forwarded or not request.forwarded)
    )
    if terms.custody is Custody.SEALED:
        return Offered((), sources)
    return Offered(tuple(_shown(Configuration.read(*files()).identities, ring)), sources)


def fetch(request: Fetch, ring: Keyring, terms: Terms) -> Fetched | Refused:
    """The job of having a key fetched, or finding it where it has been fetched already."""
    configuration = Configuration.read(*files())
    configured = configuration.find(request.blob)
    if configured is None:
        identities = Identities.read()
        if source_of(request.blob, identities):
            return Refused("it isn't fetched for a forwarded request, as its [[identity]] has it")
        faults = "; some lines that configure keys are of no use: see kagentctl check"
        wrong = configuration.faults or identities.faults
        return Refused("no such key" + (faults if wrong else ""))
    if terms.custody is Custody.SEALED:
        return Refused("kagent was started with --custody sealed, and this key isn't to be")
    try:
        key = _request(configured.description, ring)
        numbers = configured.public.numbers
        proved = RsaPublicKey(int(numbers["e"]), int(numbers["n"])).is_of(key)
    except KernelKeyError as error:
        return Refused(f"{configured.description}: {FetchFailure.explain(error)}")
    if not proved:
        # It stays until its time is over: fetched anew at each request it would be no other.
        return Refused(f"{configured.description}: a key was fetched, but not the configured one")
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
    if line is None or line.left == "expd":
        return "not fetched yet", 0
    if line.under_construction:
        return "being fetched", 0
    expires = 0 if line.left == "perm" else int(time.time()) + seconds(line.left)
    if not line.negative:
        return "fetched", expires
    try:
        syscalls.search(ring.serial, "asymmetric", one.description)
    except KernelKeyError as error:
        return f"refused: {FetchFailure.explain(error)}", expires
    return "not fetched yet", 0
