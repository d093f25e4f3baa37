"""Whether the agent at SSH_AUTH_SOCK can ask its user, as far as can be told from outside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from ...openssh import askpass
from ...protocol.refusals import Cause
from ..steps import Step, step_for
from .units import NoSystemd, environment, of_systemd


def obstacle() -> tuple[str, Step] | None:
    """Why it can't, and what to do; None if nothing is known that keeps it from asking."""
    its = _environment()
    if not askpass.usable(its):
        return "no window can be opened", step_for(Cause.CANNOT_ASK, by_hand=not of_systemd())
    if shutil.which(program := askpass.program(its)) is None:
        return f"{program} is not there", step_for(Cause.NO_ASKPASS)
    return None


def _environment() -> Mapping[str, str]:
    """The agent's, if it is started now."""
    try:
        return environment() if of_systemd() else os.environ
    except NoSystemd:
        return os.environ
