"""Notes that a key has logged in to a host, in the one file that says so.

The front has no files, and a process that opens others could do more than note it.
"""

from __future__ import annotations

from ..jobs import roles
from ..jobs.causes import Cause
from ..jobs.jobs import Done, Refused
from ..jobs.questions import Learn
from ..learned import File, Learned, Unusable, today, with_login


class Notes:
    """The file, or why there is none."""

    def __init__(self) -> None:
        """Open it, and lose all system calls that this takes.  Raises CannotConfine."""
        self._file: File | None = None
        self._fault = ""
        try:
            self._file = File(to_write=True)
        except (FileNotFoundError, Unusable) as error:
            self._fault = str(error)
        roles.LEARN.confine()

    def learn(self, login: Learn) -> Done | Refused:
        """The job of noting it."""
        if self._file is None:
            return Refused(Cause.FAULT, self._fault)
        noted = Learned(login.host, login.key, today())
        try:
            self._file.change(lambda lines: with_login(lines, noted))
        except Unusable as error:
            return Refused(Cause.FAULT, str(error))
        return Done()
