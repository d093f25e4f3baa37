"""The agent's lock (ssh-add.c)."""

from __future__ import annotations

from ...protocol.messages import Lock, Unlock
from ..client import AgentError, Client
from . import prompt
from .report import Report


def lock(client: Client, report: Report) -> bool:
    """Ask for a password, twice, and lock the agent with it."""
    password = prompt.passphrase("Enter lock password: ", report)
    if prompt.passphrase("Again: ", report) != password:
        report.tell("Passwords do not match.")
        return False
    return _do(client, report, Lock(password), "lock")


def unlock(client: Client, report: Report) -> bool:
    """Ask for the password and unlock the agent."""
    password = prompt.passphrase("Enter lock password: ", report)
    return _do(client, report, Unlock(password), "unlock")


def _do(client: Client, report: Report, message: Lock | Unlock, verb: str) -> bool:
    try:
        client.do(message)
    except AgentError as error:
        report.tell(f"Failed to {verb} agent: {error}")
        report.explain(client)
        return False
    report.tell(f"Agent {verb}ed.")
    return True
