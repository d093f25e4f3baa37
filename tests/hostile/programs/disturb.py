"""disturb KEEPER: stop, let go on and kill the agent's processes at random, but for the keeper."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

from .tools import argument, children, goes_on, ready, tell

# A front that ends in its first second is taken for one that can't live.
_SECONDS_OF_A_FRONT = 1.2


def main() -> None:
    keeper, tries = argument(1), 0
    killed = time.monotonic()
    ready()
    while goes_on():
        family = children(keeper)
        for pid in (*family, *(one for child in family for one in children(child))):
            number = random.choice((signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM, signal.SIGCONT))
            front = family[:1] == [pid]
            if front and number != signal.SIGSTOP:
                if time.monotonic() < killed + _SECONDS_OF_A_FRONT:
                    continue
                killed = time.monotonic()
            with suppress(ProcessLookupError):
                tries += 1
                os.kill(pid, number)
                time.sleep(random.uniform(0, 0.003))
                os.kill(pid, signal.SIGCONT)
        time.sleep(random.uniform(0, 0.01))
    tell(tries, [])


if __name__ == "__main__":
    main()
