"""Sets up kagent, and shows how it and its keys are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container
from importlib import import_module

from ... import __version__
from ..command import command

# Each is a module beside this one, imported only where it is needed: its docstring is what --help
# says, add_arguments (if it takes any) declares them, and run is given them and does it.
_COMMANDS = {
    "doctor": "can kagent work here, and what mends it if not",
    "check": "are the configuration files as they should be",
    "show": "the keyrings, and what is known of the keys in them",
    "prove": "is anything of a key in the agent's memory?",
    "share": "let another user sign with a key",
    "shared": "which user has which key",
    "unshare": "end the sharing of a key",
    "accept": "take the keys that another user shares",
    "install": "kagent as your agent, by systemd",
    "uninstall": "undo install",
    "status": "how the agent is",
    "log": "what was signed and refused, and for whom",
    "forget": "end the service's keys",
}


def main() -> int:
    """The program; its exit code."""
    return command("kagentctl", _main)


def _main() -> int:
    words = sys.argv[1:]
    arguments = vars(parser(words).parse_args(words))
    run = arguments.pop("run")
    code: int = run(**arguments)
    return code


def parser(needed: Container[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The command line, with what belongs to the commands that are `needed`."""
    parser = argparse.ArgumentParser(prog="kagentctl", description=__doc__)
    parser.add_argument("--version", action="version", version=f"kagent {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    for name, line in _COMMANDS.items():
        command = commands.add_parser(
            name, help=line, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in needed:
            module = import_module(f".{name}", __package__)
            command.description = module.__doc__
            if hasattr(module, "add_arguments"):
                module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
