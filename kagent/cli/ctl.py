"""kagentctl: what ssh-agent never had."""

from __future__ import annotations

import argparse
import sys

from .. import __version__


def main() -> int:
    """The console script; its exit code."""
    options = _parser().parse_args()
    code: int = options.run(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kagentctl", description=__doc__)
    parser.add_argument("--version", action="version", version=f"kagent {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    doctor = commands.add_parser(
        "doctor",
        help="can kagent work here, and what mends it if not",
        description="Checks all that kagent needs.  Exits with 0 if it can work here, else with 1.",
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from . import doctor

    return doctor.run(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
