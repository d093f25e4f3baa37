"""What kagent-add says on standard error, in the ways in which OpenSSH's programs do (log.c)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import NoReturn

from ...text import printable
from ..client import Client
from ..options import fail

FATAL = 255  # OpenSSH's exit code where a program can't go on


@dataclass
class Report:
    """Whom to tell what: -q, and how often -v."""

    quiet: bool = False
    verbosity: int = 0
    explained: bool = False  # that a kagent has refused something

    def tell(self, text: str) -> None:
        """A line that must be seen."""
        sys.stderr.write(f"{text}\n")

    def done(self, text: str) -> None:
        """A line that -q leaves out."""
        if not self.quiet:
            self.tell(text)

    def explain(self, client: Client, own: tuple[str, ...] = ()) -> None:
        """Why the last request was refused, which ssh-add has no words for.

        A kagent says so; of another agent it is known of `own`, the options that only kagent has.
        """
        explanation = client.explanation()
        if explanation:
            self.tell(f"kagent: {printable(explanation)}")
            self.explained = True
        elif explanation is None and own:
            self.tell(f"kagent-add: {' and '.join(own)} can be used with kagent only")

    def tell_where_help_is(self) -> None:
        """The last line, if a kagent has refused something.

        It isn't told there through a forwarded connection, and whether this is one isn't known.
        """
        if self.explained:
            self.tell("kagent-add: where kagent runs, kagentctl why tells what to do")

    def error(self, text: str) -> None:
        """A line as log.c writes it."""
        self.tell(_logged(text))

    def debug(self, level: int, text: str) -> None:
        """A line that is shown if -v was given at least `level` times."""
        if self.verbosity >= level:
            self.error(f"debug{level}: {text}")


def fatal(text: str) -> NoReturn:
    """Say why kagent-add can't go on, and exit."""
    fail(_logged(text), FATAL)


def _logged(text: str) -> str:
    """With a line end for a terminal in raw mode, and nothing else that could drive it: vis(3)."""
    shown = []
    for byte in text.encode("utf-8", "surrogateescape"):
        if byte == ord("\\"):
            shown.append("\\\\")
        elif 0x20 <= byte < 0x7F or byte in b"\t\n\r\b\a":
            shown.append(chr(byte))
        else:
            shown.append(f"\\{byte:03o}")
    return "".join(shown) + "\r"
