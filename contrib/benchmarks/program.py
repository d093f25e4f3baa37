"""Measures kagent beside the bare system call and OpenSSH's ssh-agent, on this machine.

What is compared is measured in turn (kagent, ssh-agent, kagent, ...), so that a row's ratio is that
of many pairs, with its median and quartiles.  A goal is missed where the median misses it and the
better quartile does too: what is nearer than that is within the noise of the run.  Where this
machine's kernel can't sign, the rows of keys in the kernel are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kagent.keyctl import join_anonymous_session
from tests.support.programs import PATH, Person

from . import login, memory, scale, signatures, starts, tpm
from .chart import chart
from .figures import HEADER, Row, line
from .running import Bench, NotHere, WentWrong

_ROUNDS = 9
_LONGEST_REASON = 300  # characters: the words of a command may be many


class Benchmark(NamedTuple):
    """Some rows that are measured together."""

    rows: Callable[[str, Bench], Iterator[Row]]
    about: str
    when: str = ""  # the option that it takes; always if there is none


BENCHMARKS = {
    **{
        f"sealed-{name}": Benchmark(partial(signatures.sealed, kind), f"sealed {kind.name} keys")
        for name, kind in signatures.SEALED.items()
    },
    **{
        f"kernel-{name}": Benchmark(partial(signatures.kernel, kind), f"{kind.name} in the kernel")
        for name, kind in signatures.KERNEL.items()
    },
    signatures.CHART: Benchmark(
        signatures.over_clients, "throughput over the number of clients", "--chart"
    ),
    "start": Benchmark(starts.start, "an agent that starts a command"),
    "activation": Benchmark(starts.activation, "the first answer after socket activation"),
    "front": Benchmark(starts.front, "the first signature after kill -9 of the front"),
    "command": Benchmark(starts.command, "kagent-add -l"),
    "memory": Benchmark(memory.in_use, "all processes of an agent that holds sealed keys"),
    "memory-idle": Benchmark(memory.idle, "a service that is idle, with keys in the kernel"),
    "memory-later": Benchmark(memory.later, "ten minutes after the last signature", "--long"),
    "listing": Benchmark(scale.listing, "1 to 500 keys listed"),
    "listing-to-host": Benchmark(scale.listing_to_host, "20 keys listed where ssh logs in"),
    "idle-clients": Benchmark(scale.idle_clients, "2,000 connected clients that ask nothing"),
    "growth": Benchmark(scale.growth, "memory after 100,000 signatures", "--long"),
    "login": Benchmark(login.login, "ssh to a server on this machine"),
    "tpm": Benchmark(tpm.beside_tpm, "beside ssh-tpm-agent, with swtpm"),
}


@dataclass
class Without:
    """The benchmarks that there are no figures of, or not all, each with the reason."""

    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """The program; its exit code."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("contrib/bench: terminated"))
    if options.list:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:16} {benchmark.about}{f' ({benchmark.when})' if benchmark.when else ''}")
        return 0
    # With --json, what is for people goes where it isn't in the way.
    told = sys.stderr if options.json else sys.stdout
    say = partial(print, file=told, flush=True)
    chosen = _chosen(options)
    machine, taken, without = _kept(options.kept) if options.kept else (_machine(), [], Without())
    say(f"{machine['processor']}, {machine['cores']} cores, Linux {machine['linux']}, ", end="")
    say(f"{machine['openssh']}, {machine['date']}, load {machine['load']}")
    say(HEADER)
    rows = []
    try:
        for row in taken if options.kept else _measured(chosen, options.rounds, without):
            rows.append(row)
            say(line(row))
    except KeyboardInterrupt:
        sys.exit("contrib/bench: interrupted")
    for name, why in without.left_out.items():
        say(f"{name}: not here: {why}")
    for name, why in without.failed.items():
        say(f"{name}: FAILED: {why}")
    if options.json:
        everything = {"machine": machine, "rows": [row.to_json() for row in rows]}
        print(json.dumps(everything | vars(without), indent=1))
    if options.chart:
        charted = [row for row in rows if row.benchmark == signatures.CHART]
        if not charted:
            sys.exit(f"contrib/bench: no rows of {signatures.CHART!r} for the chart")
        options.chart.write_text(_drawn(charted, machine))
    missed = [row for row in rows if row.verdict == "missed"]
    if missed:
        say(f"{len(missed)} of {sum(bool(row.goal) for row in rows)} goals are missed")
    return 1 if without.failed or (missed and options.check) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="contrib/bench", description=__doc__)
    parser.add_argument(
        "--rows",
        action="append",
        metavar="NAME",
        help="these benchmarks alone, as 'sealed-*' (may be repeated)",
    )
    parser.add_argument("--list", action="store_true", help="name all benchmarks, and end")
    parser.add_argument(
        "--rounds", type=_at_least_one, default=_ROUNDS, help=f"{_ROUNDS} without it"
    )
    parser.add_argument("--long", action="store_true", help="also what takes ten minutes")
    parser.add_argument("--check", action="store_true", help="end with 1 if a goal is missed")
    parser.add_argument("--json", action="store_true", help="all values, for programs")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="draw throughput over clients, as SVG"
    )
    parser.add_argument(
        "--from",
        dest="kept",
        type=Path,
        metavar="FILE",
        help="measure nothing: take what --json has written before",
    )
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it is a number from 1 on, not {text!r}")
    return int(text)


def _chosen(options: argparse.Namespace) -> dict[str, Benchmark]:
    """The benchmarks to run."""
    for pattern in options.rows or ():
        if not any(fnmatchcase(name, pattern) for name in BENCHMARKS):
            sys.exit(f"contrib/bench: no rows are named {pattern!r}; --list names all")
    given: dict[str, bool] = {"--long": options.long, "--chart": bool(options.chart), "": True}

    def wanted(name: str, benchmark: Benchmark) -> bool:
        if options.rows and not (name == signatures.CHART and options.chart):
            return any(fnmatchcase(name, pattern) for pattern in options.rows)
        return given[benchmark.when]

    return {name: one for name, one in BENCHMARKS.items() if wanted(name, one)}


def _measured(chosen: dict[str, Benchmark], rounds: int, without: Without) -> Iterator[Row]:
    """Their rows, as they come; those that can't be had go to `without`."""
    join_anonymous_session()  # the agents' own, which ends with this
    # In /tmp, since a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="kagent-bench-", dir="/tmp") as folder:
        bench = Bench(Person.named(None, Path(folder) / "home"), rounds)
        for name, benchmark in chosen.items():
            try:
                yield from benchmark.rows(name, bench)
            except NotHere as why:
                without.left_out[name] = str(why)
            except (WentWrong, AssertionError, OSError, subprocess.SubprocessError) as error:
                without.failed[name] = textwrap.shorten(str(error), _LONGEST_REASON)


def _machine() -> dict[str, Any]:
    """Where the figures come from."""
    about = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", about, re.MULTILINE)
    told = subprocess.run(["ssh", "-V"], capture_output=True, text=True, env={"PATH": PATH})
    return {
        "processor": " ".join(model[1].split()) if model else platform.machine(),
        "cores": os.cpu_count(),
        "linux": platform.release(),
        "python": platform.python_version(),
        "openssh": told.stderr.partition(",")[0].split()[0].replace("_", " "),
        "date": date.today().isoformat(),
        "load": round(os.getloadavg()[0], 1),
    }


def _kept(file: Path) -> tuple[dict[str, Any], list[Row], Without]:
    """What an earlier run has written."""
    try:
        told = json.loads(file.read_text())
        without = Without(told["left_out"], told["failed"])
        return told["machine"], [Row.from_json(row) for row in told["rows"]], without
    except OSError as error:
        sys.exit(f"contrib/bench: {file}: {error.strerror}")
    except (ValueError, LookupError, TypeError):
        sys.exit(f"contrib/bench: {file} is not what --json has written")


def _drawn(rows: list[Row], machine: dict[str, Any]) -> str:
    where = [
        f"{machine['processor']}, {machine['cores']} cores · Linux {machine['linux']}",
        f"Python {machine['python']} · {machine['openssh']} · {machine['date']} · "
        f"medians of {len(rows[0].this.values)} rounds, and quartiles",
    ]
    return chart(rows, "One Ed25519 key, many clients: kagent beside ssh-agent", where)
