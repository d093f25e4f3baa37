"""What README and the manual pages have people type and put into files, as it stands there.

With the standard library only, since the booted stories use it too.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

CHECKOUT = next(one for one in Path(__file__).parents if (one / "contrib/man").is_dir())
README = "README.md"
PAGES = (README, *sorted(path.name for path in (CHECKOUT / "contrib/man").iterdir()))


def text(page: str) -> str:
    """All of README.md, or of a manual page."""
    return (CHECKOUT / ("" if page == README else "contrib/man") / page).read_text()


def blocks(page: str) -> list[str]:
    """What stands apart there, each without the prompts of its lines."""
    if page == README:
        found = re.findall(r"^```\w*\n(.*?)^```$|((?:^    [^\n]*\n)+)", text(page), re.M | re.S)
        return [_typed(fenced or re.sub("^    ", "", more, flags=re.M)) for fenced, more in found]
    found = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$|^\.Dl ([^\n]*\n)", text(page), re.M | re.S)
    return [
        _typed((display or line).replace(r"\e", "\\"))
        for display, line in found
        if not re.match(r"\w+/test_\w+\.py", line)  # the threat model names tests so
    ]


def block(page: str, first: str) -> str:
    """The one whose first line begins so."""
    [found] = [one for one in blocks(page) if one.startswith(first)]
    return found


def rendered(page: str) -> str:
    """A manual page as markdown."""
    path = CHECKOUT / "contrib/man" / page
    made = subprocess.run(["mandoc", "-T", "markdown", path], capture_output=True, text=True)
    return made.stdout.replace("'`", "`").replace("`'", "`")


def _typed(shown: str) -> str:
    """Where lines have prompts, it is the others that are shown."""
    typed = re.findall(r"^[$#] (.*\n)", shown, re.M)
    return "".join(typed) if shown.startswith(("$ ", "# ")) else shown
