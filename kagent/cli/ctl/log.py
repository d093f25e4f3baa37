"""A line for each signature and each refusal, from the journal: what for, by whom, with which key.
journalctl shows it, and so decides on colours and pages."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..command import become
from ..options import fail

# By identifier, which the service and an agent in the background have in common.
_MATCH = "--identifier=kagent"
# systemd-journald(8): where it is kept, until the next boot or for long.
_JOURNALS = (Path("/run/log/journal"), Path("/var/log/journal"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="the last N lines")
    parser.add_argument("--json", dest="as_json", action="store_true", help="for programs")


def run(*, follow: bool, lines: int | None, as_json: bool) -> int:
    """Become journalctl."""
    # Without files journalctl would show nothing, and not say why.
    if not any(any(journal.glob("*")) for journal in _JOURNALS):
        fail(
            "kagentctl: there is no journal that you can read; kagent -D and -d log to standard "
            "error, an agent in the background to the system's log, as auth"
        )
    # Quietly: it would say that others' messages aren't shown.
    words = ["journalctl", "--quiet", _MATCH, f"_UID={os.getuid()}"]
    words += ["--output=json"] if as_json else ["--output=short-iso"]
    words += ["--follow"] if follow else []
    words += [f"--lines={lines}"] if lines is not None else []
    try:
        become(words)  # the pager and the colours are its own
    except OSError as error:
        fail(f"kagentctl: journalctl: {error.strerror}")
