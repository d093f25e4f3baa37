"""churn KEEPER: at random and without an end, do to keyrings what this user may do.

Keys are linked away and back, anchors replaced, records forged and copied, permissions changed.
"""

from __future__ import annotations

import random
from contextlib import suppress

from kagent.custody.identity import Custody, Identity
from kagent.keyctl import syscalls
from kagent.keyctl.errors import KernelKeyError
from kagent.protocol.wire import ProtocolError

from .tools import goes_on, ready, tell

_SESSION, _USER, _PROCESS = -3, -4, -2
_ANCHORS = ("kagent:session", "kagent:user")
_PERMISSIONS = (0x3F3F3F3F, 0x3F010000, 0x3F3F0000, 0x01010000, 0x37370000, 0x003F0000, 0)


class Churning:
    def __init__(self) -> None:
        self._own = syscalls.add_key("keyring", "own", None, _PROCESS)
        # Most often at what an agent looks at.
        self._random = random.Random(1)
        self.did = 0

    def once(self) -> None:
        act = self._random.choice(
            (self.link_away, self.link_back, self.forge, self.spoil, self.replace, self.unlink)
        )
        with suppress(KernelKeyError, ProtocolError, IndexError, UnicodeError):
            act()
            self.did += 1

    def _anchor(self) -> int:
        within = self._random.choice((_SESSION, _USER))
        return syscalls.search(within, "keyring", self._random.choice(_ANCHORS))

    def _content(self, ring: int) -> list[int]:
        return list(memoryview(syscalls.read(ring)).cast("i"))

    def _some(self, ring: int) -> int:
        return self._random.choice(self._content(ring))

    def link_away(self) -> None:
        syscalls.link(self._some(self._anchor()), self._own)

    def link_back(self) -> None:
        syscalls.link(self._some(self._own), self._random.choice((_SESSION, self._anchor())))

    def forge(self) -> None:
        """A record for a key that was seen, that says it is free, and in whatever custody."""
        name = syscalls.describe(self._some(self._own)).split(";", 4)[4]
        for serial in self._content(self._own):
            with suppress(KernelKeyError, ProtocolError):
                record = Identity.parse(syscalls.read(serial))
                free = Identity(record.blob, "free", self._random.choice(list(Custody)))
                syscalls.add_key("user", free.description, free.write(), self._anchor())
        syscalls.add_key("user", name, b"nothing", self._anchor())

    def spoil(self) -> None:
        syscalls.setperm(self._some(self._own), self._random.choice(_PERMISSIONS))

    def replace(self) -> None:
        within = self._random.choice((_SESSION, _USER))
        made = syscalls.add_key("keyring", self._random.choice(_ANCHORS), None, within)
        syscalls.setperm(made, self._random.choice(_PERMISSIONS))

    def unlink(self) -> None:
        anchor = self._anchor()
        syscalls.unlink(self._some(anchor), anchor)


def main() -> None:
    churning = Churning()
    ready()
    while goes_on():
        for _ in range(50):
            churning.once()
        if churning.did % 500 < 50:
            with suppress(KernelKeyError):
                syscalls.clear(churning._own)
    tell(churning.did, [])


if __name__ == "__main__":
    main()
