"""python3 -m tests.machine [--kernel um] [--exchange FOLDER] [--seconds N] -- COMMAND ..."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from . import um
from .boot import MachineError, run
from .kernels import SUITES, kernel


def main() -> int:
    """The command's exit code; 125 if the machine failed."""
    parser = argparse.ArgumentParser(prog="tests.machine", description=__doc__)
    parser.add_argument("--kernel", choices=("um", *SUITES), default="um")
    parser.add_argument("--exchange", type=Path, help="a folder that both see")
    parser.add_argument("--seconds", type=float, default=1800, help="the machine's time limit")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        exchange = options.exchange or Path(folder)
        try:
            chosen = um.kernel() if options.kernel == "um" else kernel(options.kernel)
            return run(chosen, options.command, exchange, options.seconds)
        except (MachineError, LookupError, OSError, subprocess.SubprocessError) as error:
            print(f"machine: {error}", file=sys.stderr)
            return 125


if __name__ == "__main__":
    sys.exit(main())
