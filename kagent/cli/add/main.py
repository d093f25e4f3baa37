"""kagent-add: ssh-add's command line, for any agent.

Texts and exit codes are ssh-add's: 0 done, 1 not all was done, 2 no agent, 255 nothing that could
be done.  What has no word for it there, why a kagent refused, follows on a line of its own; and
where to ask what to do, once, as the last line.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable
from typing import NoReturn

from ...confine.process import forbid_core_dumps
from ..client import START, AgentUnavailable, Client
from ..command import command
from ..options import fail
from .options import Options
from .report import fatal

_DEFAULT_FILES = (
    "id_rsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
    "id_mldsa44_ed25519",
)


def main() -> NoReturn:
    """The program, to its end."""
    command("kagent-add", _main)


def _main() -> int:
    forbid_core_dumps()
    options = Options(sys.argv[1:])
    try:
        with Client() as client:
            return int(not _run(client, options))
    except AgentUnavailable as error:
        told = "Could not open a connection to your authentication agent."
        if str(error):
            told = f"Error connecting to agent: {error}"
        fail(f"{told}\nkagent-add: {START}", 2)
    finally:
        options.report.tell_where_help_is()


def _run(client: Client, options: Options) -> bool:
    """Do what is asked for; whether all went well."""
    # Each action has a module, and a run needs one of them.
    report = options.report
    match options.action:
        case "x" | "X":
            from . import locking

            return (locking.lock if options.action == "x" else locking.unlock)(client, report)
        case "l" | "L":
            from .listing import list_identities

            hash_name = options.hash_name if options.action == "l" else None
            return list_identities(client, report, hash_name)
        case "Q":
            from .listing import list_extensions

            list_extensions(client, report)
            return True
        case "D":
            from .removing import remove_all

            return remove_all(client, report)
    from .destinations import permitted_hops

    hops = permitted_hops(options.destinations, options.hostkey_files, report)
    match options.action:
        case "T":
            from .testing import test_key

            if not options.files:
                fatal("no keys to test")
            return all([test_key(client, report, name) for name in options.files])
        case "s" | "e":
            from .cards import Card

            card = Card(client, options, hops)
            return card.remove() if options.removing else card.add()
        case "d":
            from .removing import Remover

            return _each(options.files, Remover(client, options).remove_file)
    from .adding import Adder

    adder = Adder(client, options, hops)
    return adder.add_resident() if options.action == "K" else _each(options.files, adder.add_file)


def _each(names: list[str], do: Callable[[str], bool]) -> bool:
    """Do it with each file, or with those that ssh uses by itself."""
    if not names:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            fail(f"No user found with uid {os.getuid()}")
        paths = [f"{home}/.ssh/{name}" for name in _DEFAULT_FILES]
        names = [path for path in paths if os.path.exists(path)]
    return bool(names) and all([do(name) for name in names])


if __name__ == "__main__":
    main()
