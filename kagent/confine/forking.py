"""A fork without what Python prepares in the child: a new seed for `random`, locks, …

The keeper has no other thread, so it needs none of that, which would be a third of the cost of a
process that does little.
"""

from __future__ import annotations

import os

from ._libc import ffi

_libc = ffi.dlopen(None)


def fork() -> int:
    """As os.fork.  fork(2); raises OSError."""
    child: int = _libc.fork()
    if child < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return child
