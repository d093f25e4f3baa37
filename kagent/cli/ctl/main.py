"""kagentctl: what ssh-agent never had."""

from __future__ import annotations

import argparse
import sys

from ... import __version__
from ...keyctl import KernelKeyError
from ..options import fail
from . import prove_help, service_help, sharing_help


def main() -> int:
    """The console script; its exit code."""
    options = parser().parse_args()
    try:
        code: int = options.run(options)
    except KernelKeyError as error:
        fail(f"kagentctl: {error}")
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
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
    show = commands.add_parser(
        "show",
        help="the keyrings, and what is known of the keys in them",
        description="Draws this login's keyrings as keyctl show does, with what is known of the "
        "keys that sign; then the keys that only the agent can see.",
    )
    show.add_argument("--json", action="store_true", help="for programs")
    show.add_argument("--watch", action="store_true", help="again after each change, until Ctrl-C")
    show.set_defaults(run=_show)
    prove = _command(
        commands, "prove", "is anything of a key in the agent's memory?", prove_help.PROVE
    )
    prove.add_argument("keys", metavar="KEYFILE", nargs="+", help="a private key file")
    prove.add_argument("--pid", type=int, metavar="PID", help="the agent, if not SSH_AUTH_SOCK's")
    prove.add_argument("--json", action="store_true", help="for programs")
    prove.set_defaults(run=_prove)
    _add_sharing(commands)
    _add_service(commands)
    return parser


def _add_service(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    install = _command(
        commands, "install", "kagent as your agent, by systemd", service_help.INSTALL
    )
    install.add_argument(
        "--autoload",
        metavar="KEY",
        action="append",
        default=[],
        help="a key file, without passphrase, to be loaded at login (may be repeated)",
    )
    install.set_defaults(run=_install)
    uninstall = _command(commands, "uninstall", "undo install", service_help.UNINSTALL)
    uninstall.set_defaults(run=_uninstall)
    status = _command(commands, "status", "how the agent is", service_help.STATUS)
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)
    log = _command(commands, "log", "what was signed and refused, and for whom", service_help.LOG)
    log.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    log.add_argument("-n", "--lines", type=int, metavar="N", help="the last N lines")
    log.add_argument("--json", action="store_true", help="for programs")
    log.set_defaults(run=_log)
    forget = _command(commands, "forget", "end the service's keys", service_help.FORGET)
    forget.set_defaults(run=_forget)


def _add_sharing(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    key = "its fingerprint, its comment, or its public key file"
    share = _command(commands, "share", "let another user sign with a key", sharing_help.SHARE)
    share.add_argument("key", metavar="KEY", help=key)
    share.add_argument("--with", dest="user", metavar="USER", required=True)
    share.set_defaults(run=_share)
    shared = _command(commands, "shared", "which user has which key", sharing_help.SHARED)
    shared.set_defaults(run=_shared)
    unshare = _command(commands, "unshare", "end the sharing of a key", sharing_help.UNSHARE)
    unshare.add_argument("key", metavar="KEY", help=key)
    unshare.add_argument("--with", dest="user", metavar="USER", help="with everybody if left out")
    unshare.set_defaults(run=_unshare)
    accept = _command(
        commands, "accept", "take the keys that another user shares", sharing_help.ACCEPT
    )
    accept.add_argument("--from", dest="user", metavar="USER", required=True)
    accept.set_defaults(run=_accept)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=help,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _install(options: argparse.Namespace) -> int:
    from . import install

    return install.install(options.autoload)


def _uninstall(_: argparse.Namespace) -> int:
    from . import install

    return install.uninstall()


def _status(options: argparse.Namespace) -> int:
    from . import status

    return status.run(as_json=options.json)


def _log(options: argparse.Namespace) -> int:
    from . import journal

    return journal.run(follow=options.follow, lines=options.lines, as_json=options.json)


def _forget(_: argparse.Namespace) -> int:
    from . import forget

    return forget.run()


def _share(options: argparse.Namespace) -> int:
    from . import sharing

    return sharing.share(options.key, options.user)


def _shared(options: argparse.Namespace) -> int:
    from . import sharing

    return sharing.shared()


def _unshare(options: argparse.Namespace) -> int:
    from . import sharing

    return sharing.unshare(options.key, options.user)


def _accept(options: argparse.Namespace) -> int:
    from . import sharing

    return sharing.accept(options.user)


def _show(options: argparse.Namespace) -> int:
    from . import show

    return show.run(as_json=options.json, watch=options.watch)


def _prove(options: argparse.Namespace) -> int:
    from . import prove

    return prove.run(options.keys, pid=options.pid, as_json=options.json)


def _doctor(options: argparse.Namespace) -> int:
    from . import doctor

    return doctor.run(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
