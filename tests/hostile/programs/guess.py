"""guess SOCKET KEEPER RIGHT: unlock by trying a list of passphrases, of which number RIGHT is it.

Who has guessed wrongly waits for the answer, each time longer.  This one lets the front wait for no
more than a second: it kills it, and has the next one look at the next passphrase.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.hostile.asking import Client

from .tools import argument, children, goes_on, ready, tell

# A front that lives less than a second is taken for one that can't live, and nobody starts another.
_LIFE = 1.1
_MOMENT = 0.05


def _guess(path: Path, number: int, until: float) -> bool:
    with Client(path, max(until - time.monotonic(), _MOMENT)) as client:
        return client.unlock(str(number).encode())


def _kill_front(keeper: int) -> None:
    """The oldest child."""
    for front in children(keeper)[:1]:
        with suppress(ProcessLookupError):
            os.kill(front, signal.SIGKILL)


def main() -> None:
    path, keeper, right = Path(sys.argv[1]), argument(2), argument(3)
    tries = 0
    got: list[str] = []
    ready()
    killed = time.monotonic()
    number = 0
    while goes_on() and not got:
        number = number % right + 1
        tries += 1
        try:
            if _guess(path, number, killed + _LIFE):
                got.append(f"unlocked by guess {tries}")
        except (OSError, AssertionError):
            pass  # it waits, and so the guess was wrong
        if time.monotonic() > killed + _LIFE:
            _kill_front(keeper)
            killed = time.monotonic()
            time.sleep(_MOMENT)
    tell(tries, got)


if __name__ == "__main__":
    main()
