"""Locking: until the passphrase comes again, the agent does nothing and its keys are out of reach.

The passphrase is not kept, only what it is checked against.  That, and how long the next guess has
to wait, is in the private ring: a front that dies leaves the agent locked, and guesses as slow.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from contextlib import suppress
from typing import NamedTuple

import trio

from .. import log
from ..custody import clock
from ..custody.rings import LOCK_NAME, POSSESSOR_ONLY
from ..custody.store import Store
from ..jobs.causes import Cause
from ..keyctl import KernelKeyError, Key
from .peer import Refusal
from .turns import Turns

# RFC 7914: 16 MiB and some ten milliseconds a guess.
_COST = {"n": 2**14, "r": 8, "p": 1}

# ssh-agent's: each wrong guess costs a tenth of a second more than the last, up to ten seconds.
_DELAY = clock.SECOND // 10
_MOST_DELAYS = 100

_STATE = struct.Struct("=16s64sIQ")


class _State(NamedTuple):
    """What is kept; `not_before` is when the next guess is looked at, by CLOCK_BOOTTIME."""

    salt: bytes
    verifier: bytes
    guesses: int
    not_before: int

    @classmethod
    def read(cls, key: Key) -> _State:
        return cls(*_STATE.unpack(key.read()))

    def write(self) -> bytes:
        return _STATE.pack(*self)


class AgentLock:
    """Whether the agent is locked, and the way in and out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ring = store.rings.private
        self.locked = self._find() is not None
        if self.locked:
            # A front may have been killed before it had withdrawn all, or after it began to put
            # things back.
            self._withdraw()
        # Guessing on several connections is no faster than on one, and takes no more memory.
        self._turns = Turns(1, 1)

    def check(self) -> None:
        """For what only an agent does that isn't locked.  Raises Refusal."""
        if self.locked:
            raise Refusal(Cause.LOCKED, "the agent is locked")

    async def lock(self, passphrase: bytes, pid: int) -> bool:
        """Lock; False if it is locked already, or if there is no passphrase.

        `pid` is who locks.  Raises KernelKeyError if it isn't locked.
        """
        if self.locked or not passphrase:
            return False
        async with self._turns.of(pid):
            if self.locked:  # meanwhile
                return False
            salt = os.urandom(16)
            state = _State(salt, await _derive(passphrase, salt), 0, 0)
            key = self._ring.add("user", LOCK_NAME, state.write())
            self.locked = True
            self._shut(key)
            return True

    async def unlock(self, passphrase: bytes, pid: int) -> bool:
        """Unlock; False if the passphrase is another, after a while, or if it isn't locked.

        `pid` is who guesses.
        """
        async with self._turns.of(pid):
            if (key := self._find()) is None:
                return False
            state = _State.read(key)
            await _until(state.not_before)
            # Before the guess is looked at: else it would cost nothing to end this process then.
            guesses = min(state.guesses + 1, _MOST_DELAYS)
            state = state._replace(guesses=guesses, not_before=clock.now() + _DELAY * guesses)
            key.update(state.write())
            if not hmac.compare_digest(await _derive(passphrase, state.salt), state.verifier):
                await _until(state.not_before)
                return False
            try:
                self._open(key)
            except KernelKeyError:
                self._withdraw()  # what was put back by then
                raise
            return True

    def _shut(self, key: Key) -> None:
        """Have the keys out of reach.  Raises KernelKeyError if it isn't locked after all."""
        try:
            key.set_permissions(POSSESSOR_ONLY)
            self._withdraw()
        except KernelKeyError as error:
            # Who asked is told that it isn't locked: so its keys are there for who has them by it.
            try:
                self._open(key)
            except KernelKeyError:
                # Then it is locked, and its passphrase opens it.
                with suppress(KernelKeyError):
                    self._withdraw()  # what was put back by then
                log.error(f"locked, but keys may still be in others' reach: {error}")
            else:
                raise

    def _open(self, key: Key) -> None:
        for fault in self._store.restore():
            log.error(fault)
        self._ring.destroy(key)
        self.locked = False

    def _withdraw(self) -> None:
        for fault in self._store.withdraw():
            log.error(fault)

    def _find(self) -> Key | None:
        return self._ring.find("user", LOCK_NAME)


async def _derive(passphrase: bytes, salt: bytes) -> bytes:
    return await trio.to_thread.run_sync(lambda: hashlib.scrypt(passphrase, salt=salt, **_COST))


async def _until(moment: int) -> None:
    while (left := moment - clock.now()) > 0:
        await trio.sleep(left / clock.SECOND)
