"""Locking: until the passphrase comes again, the agent does nothing and its keys are out of reach.

The passphrase is not kept, only what it is checked against; that is in the private ring, so that a
front that dies leaves the agent locked.
"""

from __future__ import annotations

import hashlib
import hmac
import os

import trio

from ..custody.rings import POSSESSOR_ONLY
from ..custody.store import Store

# Not under the prefix of identities: removing all of those must not unlock.
_NAME = "kagent-lock"
_SALT_LENGTH = 16
# RFC 7914: 16 MiB and some ten milliseconds a guess.
_COST = {"n": 2**14, "r": 8, "p": 1}

# ssh-agent's: each wrong guess costs a tenth of a second more than the last, up to ten seconds.
_DELAY = 0.1
_MOST_DELAYS = 100


class Lock:
    """Whether the agent is locked, and the way in and out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ring = store.rings.private
        self.locked = self._ring.find("user", _NAME) is not None
        self._wrong_guesses = 0
        self._turn = trio.Lock()  # guessing on several connections is no faster than on one

    async def lock(self, passphrase: bytes) -> bool:
        """Lock; False if it is locked already, or if there is no passphrase."""
        async with self._turn:
            if self.locked or not passphrase:
                return False
            salt = os.urandom(_SALT_LENGTH)
            verifier = await _derive(passphrase, salt)
            self._ring.add("user", _NAME, salt + verifier).set_permissions(POSSESSOR_ONLY)
            self.locked = True
            self._store.withdraw()
            return True

    async def unlock(self, passphrase: bytes) -> bool:
        """Unlock; False if the passphrase is another, after a while, or if it isn't locked."""
        async with self._turn:
            key = self._ring.find("user", _NAME)
            if not self.locked or key is None:
                return False
            payload = key.read()
            salt, verifier = payload[:_SALT_LENGTH], payload[_SALT_LENGTH:]
            if not hmac.compare_digest(await _derive(passphrase, salt), verifier):
                self._wrong_guesses = min(self._wrong_guesses + 1, _MOST_DELAYS)
                await trio.sleep(_DELAY * self._wrong_guesses)
                return False
            self._store.restore()
            self._ring.destroy(key)
            self.locked = False
            self._wrong_guesses = 0
            return True


async def _derive(passphrase: bytes, salt: bytes) -> bytes:
    return await trio.to_thread.run_sync(lambda: hashlib.scrypt(passphrase, salt=salt, **_COST))
