"""What kagentctl why says is to be done, for each cause of a refusal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kagent.cli.steps import BY_HAND, OTHERWISE, STEPS, Step, step_for
from kagent.protocol.refusals import Cause

MANUAL = Path(__file__).parents[2] / "contrib/man"
# What is typed: kagent's commands, OpenSSH's, and what changes the system.
PROGRAMS = {
    *("kagent", "kagentctl", "kagent-add", "kagent-provision"),
    *("ssh", "ssh-add", "ssh-keygen", "systemctl", "sysctl", "apt-get", "chmod", "ps"),
}


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("by_hand", [False, True])
def test_each_cause_has_a_step(cause: Cause, by_hand: bool) -> None:
    step = step_for(cause, by_hand=by_hand)
    command = step.command.removeprefix('eval "$(').removesuffix(')"')
    words = [word for word in command.split() if word not in ("sudo", "SSH_AUTH_SOCK=SOCKET")]
    assert words[0] in PROGRAMS
    assert step.why
    assert not step.why.endswith(".")
    assert not (by_hand and "systemctl" in f"{step}")


def test_a_cause_of_another_version() -> None:
    assert step_for("of-tomorrow") == OTHERWISE


def manual_of(command: str) -> str:
    [page, *_] = sorted(MANUAL.glob(f"{command.split()[0]}.[0-9]"))
    return page.read_text()


@pytest.mark.parametrize(
    "step",
    [s for s in (*STEPS.values(), *BY_HAND.values()) if re.match("kagent", s.command)],
    ids=lambda step: step.command,
)
def test_what_is_to_be_typed_is_in_the_manual(step: Step) -> None:
    """Its command, and its options, but for those that kagent has from ssh-agent."""
    page = manual_of(step.command)
    program, *words = step.command.split()
    if program == "kagentctl" and not words[0].startswith("-"):
        assert f"It Cm {words[0]}" in page
    for option in re.findall(r" --([\w-]+)", step.command):
        assert f"Fl -{option}" in page or option == "version"
