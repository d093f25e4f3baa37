"""python3 -m tests.machine.prepare um 6.12 trixie: makes what machines need, one after the other.

tests/run starts it beside the first lane: what it has made, or is making, needn't be made later.
"""

from __future__ import annotations

import sys

from . import debian, environment, kernels, um


def made(name: str) -> bool:
    """Whether that is there already."""
    if name == "um":
        return um.found() is not None
    if name in debian.RELEASES:
        return debian.tree_home(name).exists()
    return (environment.cache_directory() / "kernels" / name).exists()


def make(name: str) -> None:
    """Make it if it isn't there.  Raises CalledProcessError, LookupError, OSError."""
    if name == "um":
        um.kernel()
    elif name in debian.RELEASES:
        debian.tree(name)
    else:
        kernels.kernel(name)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        make(name)
