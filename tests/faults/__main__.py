"""Injects faults: contrib/faults."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.people import begin_login, forget, somebody

from .injector import FAULTS
from .play import OPERATIONS, Broken, Plan, Stand, play, steps_of


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="contrib/faults", description=_ABOUT)
    names = [*FAULTS, *OPERATIONS]
    parser.add_argument(
        "only", nargs="*", metavar="FAULT|OPERATION", help=f"of {', '.join(names)}; without: all"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th step only")
    parser.add_argument(
        "--offset", type=int, default=0, metavar="N", help="beginning with the N-th"
    )
    parser.add_argument("--role", help="only in that kind of process, as keeper")
    parser.add_argument("--step", help="only at that one, as keyctl:2")
    parser.add_argument(
        "--lasting",
        action="store_true",
        help="for a second, all that follows there fails as well",
    )
    parser.add_argument("--json", action="store_true", help="the table in JSON")
    options = parser.parse_args(words)
    if unknown := set(options.only) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if os.getuid() != 0:
        parser.error("only root can")
    operations = [one for one in OPERATIONS if one in options.only]
    faults = [one for one in FAULTS if one in options.only]
    table: dict[str, Counter[str]] = {one: Counter() for one in operations or OPERATIONS}
    found: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kagent-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        person = somebody("faulty", Path(folder))
        begin_login(person)
        stand = Stand(person)
        try:
            for operation, counted in table.items():
                steps = steps_of(stand, operation)
                for fault in faults or FAULTS:
                    could = [
                        step
                        for step in steps
                        if fault in step.faults
                        and options.role in (None, step.role)
                        and options.step in (None, f"{step.call}:{step.number}")
                    ]
                    for step in could[options.offset :: options.every]:
                        plan = Plan(operation, fault, step, options.lasting)
                        try:
                            counted[fault] += play(stand, plan) is not None
                        except Broken as error:
                            counted[fault] += 1
                            counted["lost"] += 1
                            told = f"{operation}, {fault} in {step.role}'s {step.call}: {error}"
                            found[told] += 1
                            print(f"{told} (number {step.number})", file=sys.stderr, flush=True)
                            for line in stand.said():
                                print(f"    {line}", file=sys.stderr, flush=True)
                            stand.stop()
                            stand.start()
                print(f"{operation}: {counted}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pass  # what was found so far is told
        finally:
            stand.stop()
            forget(person)
    if options.json:
        print(json.dumps(table))
    else:
        _print(table, faults or list(FAULTS))
        print(f"{time.monotonic() - started:.0f} seconds, {stand.started} agents")
    for told, count in found.most_common():
        print(f"{count:6} {told}")
    return bool(found)


def _print(table: dict[str, Counter[str]], faults: Sequence[str]) -> None:
    columns = [*faults, "lost"]
    print(f"{'':14}" + "".join(f"{one:>12}" for one in columns))
    for operation, counted in table.items():
        print(f"{operation:14}" + "".join(f"{counted[one]:12}" for one in columns))
    total = sum(table.values(), Counter[str]())
    print(f"{'':14}" + "".join(f"{total[one]:12}" for one in columns))


_ABOUT = """\
Has a fault met at each step of each operation, by each process that takes part, and looks after
each whether all is true that has to be.  The table has how often; 1 where something was lost."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
