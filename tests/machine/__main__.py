"""Runs a command as root in a machine over this machine's files, which it can't change.

python3 -m tests.machine -- bash is a shell there; see contrib/DEVELOPING.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from . import boot, debian, environment, kernels, um


def main() -> int:
    """The command's exit code; 125 if the machine failed."""
    parser = argparse.ArgumentParser(prog="tests.machine", description=__doc__)
    parser.add_argument(
        "--kernel",
        choices=("um", *kernels.SUITES),
        default="um",
        help="the user-mode one, or one of Debian's, under qemu",
    )
    parser.add_argument(
        "--debian",
        nargs="?",
        choices=debian.RELEASES,
        const=debian.RELEASE,
        help="over the system lane's whole Debian instead; user-mode, it has a TPM",
    )
    parser.add_argument("--exchange", type=Path, help="a folder that both see, /run/machine there")
    parser.add_argument("--seconds", type=float, help="the machine's time limit")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    # A command at a terminal has it, and its time.
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    seconds = options.seconds or (1e6 if terminal else 1800)
    with tempfile.TemporaryDirectory() as folder:
        given = (options.command, options.exchange or Path(folder), seconds)
        try:
            kernel: boot.Machine
            if options.kernel == "um":
                environment.install(environment.BUILD_PACKAGES)
                kernel = um.kernel()
            else:
                environment.install(environment.MACHINE_PACKAGES)
                kernel = kernels.kernel(options.kernel)
            if options.debian:
                environment.install(environment.MACHINE_PACKAGES)
                python = environment.python_with("tests", "-e", f"{environment.CHECKOUT}[test]")
                return debian.boot_into(
                    kernel, python, *given, terminal=terminal, release=options.debian
                )
            return boot.run(kernel, *given, terminal=terminal)
        except (
            *(boot.MachineError, environment.SetUpError, LookupError, OSError),
            subprocess.SubprocessError,
        ) as error:
            print(f"machine: {error}", file=sys.stderr)
            return 125


if __name__ == "__main__":
    sys.exit(main())
