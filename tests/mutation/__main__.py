"""Tells which changes of kagent's code no test notices: contrib/mutate."""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.machine.environment import CHECKOUT, cache_directory

from .mutants import Mutant, mutants
from .reach import Reach, reach
from .running import KILLED, SURVIVED, TIMED_OUT, Changed

_EXPLAINED = Path(__file__).parent / "explained.toml"

# What decides about keys, and the tests that are about it.
MODULES = {
    "kagent/custody/ledger.py": ["host/test_store"],
    "kagent/custody/sharing.py": ["host/test_sharing"],
    "kagent/custody/shelf.py": ["unit/test_shelf", "host/test_store"],
    "kagent/custody/store.py": ["host/test_store"],
    "kagent/front/destinations.py": ["unit/test_destinations"],
    "kagent/front/lock.py": ["host/test_store"],
    "kagent/front/sessions.py": ["unit/test_destinations"],
    "kagent/jobs/terms.py": ["unit/test_terms"],
    "kagent/protocol/algorithms.py": [
        "unit/test_algorithms",
        "unit/test_publickey",
        "unit/test_verify",
        "unit/test_configured",
        "unit/test_kernel_custody",
    ],
    "kagent/protocol/constraints.py": ["unit/test_protocol", "unit/test_destinations"],
    "kagent/protocol/messages.py": [
        "unit/test_protocol",
        "unit/test_records",
        "unit/test_renewals",
    ],
    "kagent/protocol/patterns.py": ["unit/test_patterns"],
    "kagent/protocol/privatekey.py": ["unit/test_protocol", "unit/test_keyfile"],
    "kagent/protocol/publickey.py": [
        "unit/test_publickey",
        "unit/test_destinations",
        "unit/test_verify",
    ],
    "kagent/protocol/refusals.py": ["unit/test_destinations", "unit/test_steps"],
    "kagent/protocol/userauth.py": ["unit/test_userauth", "unit/test_destinations"],
    "kagent/protocol/wire.py": ["unit/test_records", "unit/test_protocol"],
    "kagent/provision/policy.py": ["unit/test_policy"],
    "kagent/workers/rules.py": ["unit/test_configuration"],
}
# No test takes as long, but one that a change has wait for ever.
_LEAST_SECONDS, _TIMES = 20, 2


# What tests import besides kagent, once for all of them.
_READY = (
    "asyncssh",
    "cryptography.hazmat.primitives.serialization.ssh",
    "cryptography.x509",
    "hypothesis.extra",
    "paramiko",
    "trio",
)


class Result(NamedTuple):
    module: str
    mutant: Mutant
    outcome: str


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="contrib/mutate", description=_ABOUT)
    parser.add_argument("modules", metavar="MODULE", nargs="*", help="none: list them; or: all")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="changes with that in their name"
    )
    parser.add_argument("--left", action="store_true", help="changes that were left the last time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="run at once")
    parser.add_argument("--tests", metavar="FILE", help=argparse.SUPPRESS)  # for our own process
    options = parser.parse_args(words)
    modules = [*MODULES] if "all" in options.modules else options.modules
    if unknown := set(modules) - {*MODULES}:
        parser.error(f"there is no module {', '.join(sorted(unknown))}")
    if options.tests:
        Path(options.tests).write_text(_written(_reach_of(modules)))
        return 0
    if not modules:
        print("\n".join(MODULES))
        return 0
    if os.getuid() != 0:
        parser.error("only root can show tests another kagent than is there: sudo")
    started = time.monotonic()
    reached = _reach_in_a_process(modules)
    print(f"{len(reached.seconds)} tests in {time.monotonic() - started:.0f} s", flush=True)
    left = cache_directory() / "mutation" / "left.json"
    before: dict[str, list[str]] = json.loads(left.read_text()) if left.exists() else {}
    work = [
        (module, one)
        for module in modules
        for one in mutants((CHECKOUT / module).read_text())
        if options.only in f"{module}:{one.line} {one.name}"
        and (not options.left or one.name in before.get(module, ()))
    ]
    results = _all(work, reached, options.jobs)
    alive = {
        module: [
            one.mutant.name for one in results if (one.module, one.outcome) == (module, SURVIVED)
        ]
        for module in modules
    }
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text(json.dumps(before | alive))
    return _report(modules, results, whole=not (options.only or options.left))


_ABOUT = """\
Changes modules that decide about keys, one small thing at a time, and runs the tests that reach it.
A change that no test notices, and that tests/mutation/explained.toml doesn't explain, is told,
and ends this with 1."""


def _reach_of(modules: Sequence[str]) -> Reach:
    return reach(modules, sorted({file for one in modules for file in _files_about(one)}))


def _files_about(module: str) -> list[str]:
    return [f"tests/{name}.py" for name in MODULES[module]]


def _written(reached: Reach) -> str:
    tests = {
        module: {line: sorted(names) for line, names in lines.items()}
        for module, lines in reached.tests.items()
    }
    return json.dumps([tests, reached.seconds])


def _reach_in_a_process(modules: Sequence[str]) -> Reach:
    """One in which kagent may be imported; here it must not, for what is forked imports it anew."""
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-m", "tests.mutation", "--tests", file.name, *modules]
        ended = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            sys.exit(ended.stdout + "contrib/mutate: see above")
        tests, seconds = json.loads(Path(file.name).read_text())
    return Reach(
        {
            module: {int(line): frozenset(names) for line, names in lines.items()}
            for module, lines in tests.items()
        },
        seconds,
    )


def _all(work: list[tuple[str, Mutant]], reached: Reach, jobs: int) -> list[Result]:
    """First with what is imported once; then, with a new kagent, what that couldn't tell."""
    for name in _READY:
        importlib.import_module(name)
    assert not any(name == "kagent" for name in sys.modules)
    waiting, results = list[_Task](), list[Result]()
    for module, one in work:
        tests = reached.of(module, one.lines, _files_about(module))
        patience = _LEAST_SECONDS + _TIMES * sum(reached.seconds.get(test, 0) for test in tests)
        if tests:
            waiting.append(_Task(module, one, tests, patience))
        else:
            results.append(Result(module, one, SURVIVED))
    for ready in (sorted({test.split("::")[0] for task in waiting for test in task.tests}), []):
        told = 0
        with multiprocessing.get_context("fork").Pool(jobs, _begin, [ready]) as pool:
            left = list[_Task]()
            for task, outcome in pool.imap_unordered(_one, waiting):
                told += 1
                if told % 100 == 0:
                    print(f"{told} of {len(waiting)}", flush=True)
                if outcome is None:
                    left.append(task)
                else:
                    results.append(Result(task.module, task.mutant, outcome))
                    if outcome != KILLED:
                        print(f"{outcome}: {_where(results[-1])}", flush=True)
            pool.close()
            pool.join()
        waiting = left
    return results


class _Task(NamedTuple):
    module: str
    mutant: Mutant
    tests: list[str]
    patience: float  # seconds


_changed: Changed


def _begin(ready: list[str]) -> None:
    global _changed
    _changed = Changed(ready)
    multiprocessing.util.Finalize(None, _changed.close, exitpriority=1)


def _one(task: _Task) -> tuple[_Task, str | None]:
    return task, _changed.outcome(task.module, task.mutant.source, task.tests, task.patience)


def _where(result: Result) -> str:
    return f"{result.module}:{result.mutant.line} {result.mutant.name}"


def _report(modules: Sequence[str], results: list[Result], *, whole: bool) -> int:
    explained: dict[str, dict[str, str]] = tomllib.loads(_EXPLAINED.read_text())
    totals = Counter[str]()
    unexplained, stale = list[Result](), list[str]()
    print(
        f"\n{'module':34}{'mutants':>9}{'killed':>9}{'timed out':>11}{'explained':>11}{'left':>6}"
    )
    for module in modules:
        mine = [one for one in results if one.module == module]
        reasons = explained.get(module, {})
        alive = [one for one in mine if one.outcome == SURVIVED]
        told = {one.mutant.name: _reason_for(one.mutant.name, reasons) for one in alive}
        left = [one for one in alive if told[one.mutant.name] is None]
        unexplained += left
        stale += [f"{module}: {name}" for name in reasons.keys() - told.values()]
        outcomes = Counter(one.outcome for one in mine)
        figures = {
            "mutants": len(mine),
            "killed": outcomes[KILLED],
            "timed out": outcomes[TIMED_OUT],
            "explained": len(alive) - len(left),
            "left": len(left),
        }
        totals.update(figures)
        _print_figures(module, figures)
    _print_figures("all", totals)
    for one in sorted(unexplained, key=lambda one: (one.module, one.mutant.line)):
        print(f"survives: {_where(one)}")
    if whole:
        for name in sorted(stale):
            print(f"explained, but no test leaves it: {name}")
    return 1 if unexplained or (whole and stale) else 0


def _reason_for(name: str, reasons: Mapping[str, str]) -> str | None:
    """Under which name a change is explained: its own, or the beginning of several with a star."""
    for told in reasons:
        if name == told or (told.endswith("*") and name.startswith(told[:-1])):
            return told
    return None


def _print_figures(name: str, figures: dict[str, int] | Counter[str]) -> None:
    widths = {"mutants": 9, "killed": 9, "timed out": 11, "explained": 11, "left": 6}
    print(f"{name:34}" + "".join(f"{figures[key]:{width}}" for key, width in widths.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
