"""Feeds targets with what reaches more and more of kagent: contrib/fuzz."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from tests.machine.environment import CHECKOUT, cache_directory

_LONGEST = 4096  # bytes of an input
_PATIENCE = 60  # seconds for one input
_TOLD = 2000  # bytes of what the fuzzer says to a fault, behind Python's traceback
_EXECUTIONS = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="contrib/fuzz", description=_ABOUT)
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="none: list them; or: all")
    parser.add_argument("--minutes", type=float, default=1, help="for each target (default: 1)")
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="tell what of kagent the examples reach, those that were found too; nothing is run",
    )
    parser.add_argument("--feed", help=argparse.SUPPRESS)  # for a process of our own
    options = parser.parse_args(words)
    if options.feed:
        feed(options.feed, options.minutes)
    if options.coverage:
        return coverage(options.targets)
    from .targets import TARGETS

    if unknown := set(options.targets) - {*TARGETS, "all"}:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    names = [*TARGETS] if "all" in options.targets else options.targets
    if not names:
        for name, one in TARGETS.items():
            print(f"{name:20} {len(one.examples):2} examples; {', '.join(one.reads)}")
        return 0
    return max([run(name, options.minutes) for name in names])


_ABOUT = """\
Feeds targets, each a thing that kagent reads and others wrote, with what reaches more and more of
it.  What did is kept in a cache directory, and is where the next run begins.  What should not be
(an error that isn't documented, an answer that an independent reader contradicts) ends the run,
with the input in a file, and 1."""


def found(name: str) -> Path:
    """Where inputs are that have reached more than those before."""
    return cache_directory() / "fuzz" / name


def run(name: str, minutes: float) -> int:
    """In a process of its own, which the fuzzer ends."""
    command = [sys.executable, "-m", "tests.fuzz", "--feed", name, "--minutes", str(minutes)]
    told = subprocess.run(command, cwd=CHECKOUT, capture_output=True)
    executions = _EXECUTIONS.search(told.stderr)
    number = int(executions[1]) if executions else 0
    print(f"{name:20} {number:10,} executions, {len([*found(name).iterdir()])} kept", flush=True)
    if told.returncode:
        sys.stdout.buffer.write(told.stdout + told.stderr[-_TOLD:])
    return min(1, told.returncode)


def feed(name: str, minutes: float) -> None:
    """Doesn't return."""
    import atheris

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["kagent"], enable_loader_override=False):
        from .targets import TARGETS
    target = TARGETS[name]
    found(name).mkdir(parents=True, exist_ok=True)
    faults = found(name).with_name("faults")
    faults.mkdir(exist_ok=True)
    settings = {
        "max_total_time": max(1, round(minutes * 60)),
        "max_len": _LONGEST,
        "timeout": _PATIENCE,
        "rss_limit_mb": 4096,
        "verbosity": 0,
        "print_final_stats": 1,
        "artifact_prefix": f"{faults}/{name}-",
    }
    words = [f"-{key}={value}" for key, value in settings.items()]
    atheris.Setup([name, *words, str(found(name)), str(target.corpus)], target.run)
    atheris.Fuzz()


def coverage(names: Sequence[str]) -> int:
    """Of the modules that the targets read with, lines and branches that are reached."""
    from coverage import Coverage

    warnings.simplefilter("ignore")
    measured = Coverage(branch=True, source=["kagent"], data_file=None)
    measured.start()
    from .targets import TARGETS

    targets = [TARGETS[name] for name in names or TARGETS]
    for target in targets:
        files = [*found(target.name).iterdir()] if found(target.name).exists() else []
        for data in (*target.examples, *(file.read_bytes() for file in files)):
            target.run(data)
    measured.stop()
    modules = sorted({f"{CHECKOUT}/kagent/{one}" for target in targets for one in target.reads})
    measured.report(include=modules, show_missing=True, file=sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
