"""Where OpenSSH's helpers are, and how they fail."""

from __future__ import annotations

import os

from ..protocol.refusals import Cause, Explained

# Where distributions put them: Debian, upstream, Fedora, Arch and openSUSE.
_FOLDERS = (
    "/usr/lib/openssh",
    "/usr/libexec",
    "/usr/libexec/openssh",
    "/usr/lib/ssh",
    "/usr/libexec/ssh",
)


class HelperError(Explained):
    """The helper didn't do it; where it says why, in OpenSSH's words."""

    def __init__(self, text: str, cause: Cause = Cause.TOKEN) -> None:
        super().__init__(cause, text)


def program(name: str) -> str:
    """The path of the helper of that name, or what its variable says: SSH_SK_HELPER, …

    Raises HelperError.
    """
    variable = name.upper().replace("-", "_")
    if given := os.environ.get(variable):
        return given
    for folder in _FOLDERS:
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise HelperError(
        f"{name} is missing: it comes with OpenSSH's client programs; {variable} names another",
        Cause.HELPER,
    )
