"""The control: a process that has the key, like any agent that holds its keys itself."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from ..private.keyfile.pem import from_library
from ..private.library import from_der
from .processes import Process, below

_NUMBER = struct.Struct("=I")


class Control:
    """A fork that waits for keys, and then has them until it is closed.

    To be made before this process has any key: what it has by then, it has from `load` alone.
    """

    def __init__(self) -> None:
        theirs, self._keys = os.pipe()
        self._ready, their_ready = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._keys)
                os.close(self._ready)
                _hold(theirs, their_ready)
            finally:
                os._exit(1)
        os.close(theirs)
        os.close(their_ready)

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._keys)
        os.close(self._ready)
        os.waitpid(self._pid, 0)

    def processes(self) -> list[Process]:
        """That one, as an agent's processes are found."""
        return below(self._pid)

    def load(self, keys: Sequence[bytes]) -> None:
        """Give it keys as `library.der` writes them; afterwards it has them.  Raises OSError."""
        for data in (_NUMBER.pack(len(keys)), *keys):
            os.write(self._keys, _NUMBER.pack(len(data)) + data)
        if not os.read(self._ready, 1):
            raise OSError("the control can't load the keys")


def _hold(source: int, ready: int) -> None:
    with open(source, "rb") as stream:

        def next_one() -> bytes:
            (length,) = _NUMBER.unpack(stream.read(_NUMBER.size))
            return stream.read(length)

        (count,) = _NUMBER.unpack(next_one())
        held = []
        for _ in range(count):
            key = from_der(next_one())
            held.append((key, from_library(key)))  # as OpenSSL's numbers, and as Python's
        os.write(ready, b"\0")
        stream.read()
