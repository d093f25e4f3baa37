"""Keys that one user of a machine lets another sign with.

The receiver makes a keyring that others may write to (a kernel keyring can't name the user who
may), under a name that says from whom keys are taken.  The giver links a key into it that gives its
possessors nothing but its use.  The receiver's agent takes no keys from there but the giver's.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ..keyctl import Permission, mask
from .identity import PREFIX

# Signing needs search, which also allows KEYCTL_INVALIDATE: the receiver can destroy the key.  The
# owner by uid keeps what it takes to take it back, also at a later login.
SHARED = mask(
    possessor=Permission.VIEW | Permission.SEARCH,
    user=Permission.VIEW | Permission.SEARCH | Permission.LINK | Permission.SETATTR,
)
# Nothing for who possesses it: the receiver may do so yet, by a keyring that the giver doesn't see.
UNSHARED = mask(
    user=Permission.VIEW | Permission.SEARCH | Permission.LINK | Permission.SETATTR,
)
# The record of a shared key tells its comment, and its certificate.
SHARED_RECORD = mask(
    possessor=Permission.VIEW | Permission.READ | Permission.SEARCH,
    user=Permission.VIEW | Permission.READ | Permission.LINK | Permission.SETATTR,
)
# Others see it, so that the giver finds it, read it, so that the giver knows what is shared, and
# write to it.
INBOX = mask(
    possessor=Permission.ALL,
    user=Permission.VIEW,
    other=Permission.VIEW | Permission.READ | Permission.WRITE,
)

_NAME = re.compile(rf"{PREFIX}from:(\d+):(.+)")


class Giver(NamedTuple):
    """Whose keys a keyring is for."""

    uid: int
    name: str

    @property
    def inbox(self) -> str:
        """What the keyring is called."""
        return f"{PREFIX}from:{self.uid}:{self.name}"

    @classmethod
    def of(cls, description: str, uid: int) -> Giver | None:
        """Whose keys a keyring of that description and owner is for; None for any other."""
        named = _NAME.fullmatch(description)
        return cls(int(named[1]), named[2]) if named and uid == os.getuid() else None
