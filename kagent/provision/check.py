"""Whether a configuration would do what it should: all but the kernel's part, which is left out."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from ..custody.configured import SYSTEM_FILE, Configuration
from . import delivery
from .backends import NotDelivered, NotRootsOwn, check_only_root_writes
from .policy import Policy, Requester, Rule

REQUEST_KEY_LINES = Path("/etc/request-key.d/kagent.conf")


def of_rules(policy: Policy, errors: int) -> Iterator[tuple[bool, str]]:
    """For each rule whether its key can be had, and what is to be said of it."""
    for rule in policy.rules:
        told = f"rule {rule.number}, {rule.key}, from {rule.backend.setting}"
        try:
            yield True, f"{told}: {_delivered(rule, errors)}"
        except NotDelivered as error:
            yield False, f"{told}: {error}"
        yield from ((False, f"rule {rule.number}: {fault}") for fault in _faults(rule))


def _faults(rule: Rule) -> Iterator[str]:
    """What keeps it from being used."""
    for kind, names, look_up in (
        ("user", rule.users, pwd.getpwnam),
        ("group", rule.groups, grp.getgrnam),
        ("program", rule.programs, os.stat),
    ):
        yield from (f"there is no {kind} {one}" for one in names if not _is_known(look_up, one))
    if fault := not_routed(rule.key):
        yield fault


def not_routed(key: str) -> str:
    """Why the kernel doesn't ask kagent-provision for that key; "" if it does.

    request-key.conf(5): op, type, description and callout as patterns, then a program.
    """
    lines = [line for file in REQUEST_KEY_LINES.parent.glob("*.conf") for line in _lines_of(file)]
    for operation, kind, pattern, _, program in lines:
        if operation == "create" and fnmatchcase("asymmetric", kind) and fnmatchcase(key, pattern):
            found = Path(program).exists()
            return "" if found else f"there is no {program}, which the kernel is told to ask"
    return f"the kernel isn't told to ask for {key}: there is no line for it in {REQUEST_KEY_LINES}"


def _lines_of(file: Path) -> list[list[str]]:
    words = (line.split()[:5] for line in file.read_text().splitlines())
    return [line for line in words if len(line) == 5 and not line[0].startswith("#")]


def _is_known(look_up: Callable[[str], object], name: str) -> bool:
    try:
        return bool(look_up(name))
    except (KeyError, OSError):
        return False


def of_configuration() -> Iterator[str]:
    """What is wrong with the system's configured identities."""
    yield from Configuration.read(SYSTEM_FILE).faults


def of_installation() -> Iterator[str]:
    """What of kagent-provision itself could be changed by others than root, who is to run it."""
    program = Path(sys.executable).with_name("kagent-provision")
    for part in (program, sys.executable, __file__):
        try:
            check_only_root_writes(Path(part))
        except (OSError, NotRootsOwn) as error:
            yield f"kagent-provision runs as root, and is not root's alone: {error}"


def of_requester(policy: Policy, requester: Requester) -> Iterator[tuple[bool, str]]:
    """For each key that has rules whether `requester` may have it, and by which rule."""
    for key in dict.fromkeys(rule.key for rule in policy.rules):
        rule = policy.rule_for(key, requester)
        by = f"by {requester.program}" if requester.program else "by a program that can't be seen"
        if rule:
            yield True, f"{key}: rule {rule.number} permits it to {requester.name} {by}"
        else:
            yield False, f"{key}: no rule permits it to {requester.name} {by}"


def _delivered(rule: Rule, errors: int) -> str:
    given = delivery.fetch(rule, errors)
    told = f"{given.public.bits} {given.public.fingerprint()} ({given.public.kind})"
    if given.expected:
        return f"{told}, as in {SYSTEM_FILE}"
    return f"{told}; whether it's the right one can't be told: {SYSTEM_FILE} has no {rule.key}"
