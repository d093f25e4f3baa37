"""kagent-provision: the keys that request_key(2) asks for."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from .. import __version__, log
from ..confine.process import forbid_core_dumps
from .command import command
from .options import fail

if TYPE_CHECKING:
    from ..provision.policy import Policy

_DESCRIPTION = """\
Gives the kernel the keys that request_key(2) asks for, as /etc/kagent/provision.toml says."""


def main() -> NoReturn:
    """The program, to its end."""
    command("kagent-provision", _main)


def _main() -> int:
    options = parser().parse_args()
    code: int = options.run(options)
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="kagent-provision", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"kagent {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    create = commands.add_parser(
        "create",
        help="give one key its payload; for request-key(8)",
        description="To be started by request-key(8): see request-key.conf(5).",
    )
    create.add_argument("key", metavar="SERIAL", type=int, help="the key under construction, %%k")
    create.set_defaults(run=_create)
    check = commands.add_parser(
        "check",
        help="does the configuration do what it should",
        description="Fetches each rule's key and says whether the kernel could sign with it, and "
        "whether it is the one in /etc/kagent/identities.  With --user, says instead which keys "
        "that user may have.  Exits with 1 if one can't be had; with --user, if none may.",
    )
    check.add_argument("--user", help="say which keys that user may have")
    check.add_argument(
        "--program",
        default=os.path.realpath(sys.executable),
        help="by this program (default: the Python that this runs in)",
    )
    check.set_defaults(run=_check)
    return parser


def _create(options: argparse.Namespace) -> int:
    forbid_core_dumps()
    log.configure(to_stderr=sys.stderr.isatty(), verbose=False, name="kagent-provision")
    from ..provision.create import create

    try:
        return create(options.key)
    except Exception as error:
        # Not the traceback: its lines could show values of the key.
        why = str(error) if isinstance(error, OSError) else type(error).__name__
        log.error(f"key {options.key} was not created: {why}")
        return 1


def _check(options: argparse.Namespace) -> int:
    forbid_core_dumps()
    from ..provision import check
    from ..provision.policy import POLICY_FILE, Policy, PolicyError

    if os.getuid() != 0:
        fail("kagent-provision: root fetches the keys: sudo kagent-provision check")
    try:
        policy = Policy.read(POLICY_FILE)
    except PolicyError as error:
        fail(f"kagent-provision: {error}")
    if not policy.rules:
        fail(f"kagent-provision: {POLICY_FILE} has no [[rule]], so nobody may have any key")
    for fault in check.of_installation():
        print(f"warning  {fault}")
    if options.user is None:
        return _check_rules(policy)
    return _check_user(policy, options.user, options.program)


def _check_rules(policy: Policy) -> int:
    from ..provision import check

    faults = list(check.of_configuration())
    for fault in faults:
        print(f"failure  {fault}")
    findings = list(check.of_rules(policy, sys.stderr.fileno()))
    for good, text in findings:
        print(f"{'ok' if good else 'failure':7}  {text}")
    return int(bool(faults) or not all(good for good, _ in findings))


def _check_user(policy: Policy, user: str, program: str) -> int:
    import pwd

    from ..provision import check
    from ..provision.policy import Requester

    try:
        requester = Requester(pwd.getpwnam(user).pw_uid, program)
    except KeyError:
        fail(f"kagent-provision: there is no user {user}")
    findings = list(check.of_requester(policy, requester))
    for permitted, text in findings:
        print(f"{'ok' if permitted else 'refused':7}  {text}")
    return int(not any(permitted for permitted, _ in findings))


if __name__ == "__main__":
    main()
