"""limit KEEPER NAME...: take those resources from every process of the agent.  prlimit(2)."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

from .tools import argument, children, goes_on, ready, tell


def _take(keeper: int) -> list[str]:
    taken = []
    for pid in (keeper, *children(keeper)):
        for name in sys.argv[2:]:
            with suppress(OSError, ValueError):
                resource.prlimit(pid, getattr(resource, f"RLIMIT_{name}"), (0, 0))
                taken.append(name)
    return taken


def main() -> None:
    keeper, tries = argument(1), 1
    taken = _take(keeper)
    ready()
    while goes_on():
        tries += 1
        _take(keeper)
    tell(tries, taken)


if __name__ == "__main__":
    main()
