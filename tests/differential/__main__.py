"""Plays many sequences: contrib/differential."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from kagent.keyctl import join_anonymous_session
from tests.support.programs import Person

from .play import Difference, Players
from .sequences import Step, sequences


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="contrib/differential", description=_ABOUT)
    parser.add_argument("--sequences", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--seed", type=int, default=0, help="the same are played with the same")
    options = parser.parse_args(words)
    warnings.simplefilter("ignore")
    join_anonymous_session()
    folder = Path(tempfile.mkdtemp(prefix="kagent-", dir="/tmp"))
    person = Person.named(None, folder / "home")
    found: dict[str, tuple[Difference, list[Step]]] = {}
    count: Counter[str] = Counter()
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            players = Players.of(person, stack)

            @seed(options.seed)
            @settings(
                max_examples=options.sequences,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=[*HealthCheck],
            )
            @given(sequences())
            def run(steps: list[Step]) -> None:
                count["sequences"] += 1
                if difference := players.play(steps):
                    kind = f"{difference.step.told.split(' ')[0]}: {difference.said}"
                    if kind not in found:
                        print(difference, flush=True)
                    found.setdefault(kind, (difference, steps))
                    count[kind] += 1

            run()
    except KeyboardInterrupt:
        pass  # what was found so far is told
    finally:
        shutil.rmtree(folder)
    seconds = time.monotonic() - started
    print(f"{count.pop('sequences')} sequences, {players.requests} requests, {seconds:.0f} seconds")
    for title, counted in (
        ("differences that kagent(1) tells of", players.meant),
        ("as the newest does, where the older does otherwise", players.outdated),
    ):
        print(f"{counted.total()} {title}")
        for name, number in counted.most_common():
            print(f"  {number:6} {name}")
    print(f"{count.total()} others")
    for kind, (difference, steps) in found.items():
        print(f"  {count[kind]:6} {difference}")
        for step in steps[: steps.index(difference.step) + 1]:
            print(f"         on {step.connection}: {step.told}  {step.frame.hex()[:_SHOWN]}")
    return 1 if found else 0


_SHOWN = 200  # characters of a frame

_ABOUT = """\
Plays random sequences of requests to kagent, to the newest ssh-agent, and to this machine's, and
compares what becomes of each.  1 where they differ, and kagent(1) doesn't tell of it."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
