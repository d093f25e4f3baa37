"""Whether a configuration would do what it should: all but the kernel's part, which is left out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..custody.configured import SYSTEM_FILE, Configuration
from . import delivery
from .backends import NotDelivered, NotRootsOwn, check_only_root_writes
from .policy import Asker, Policy, Rule


def of_rules(policy: Policy, errors: int) -> Iterator[tuple[bool, str]]:
    """For each rule whether its key can be had, and what is to be said of it."""
    for rule in policy.rules:
        try:
            yield True, f"{_told(rule)}: {_delivered(rule, errors)}"
        except NotDelivered as error:
            yield False, f"{_told(rule)}: {error}"


def of_configuration() -> Iterator[str]:
    """What is wrong with the system's configured identities."""
    yield from Configuration.read(SYSTEM_FILE).faults


def of_installation() -> Iterator[str]:
    """What of kagent-provision itself could be changed by others than root, who is to run it."""
    for part in (sys.argv[0], sys.executable, __file__):
        try:
            check_only_root_writes(Path(part))
        except (OSError, NotRootsOwn) as error:
            yield f"kagent-provision runs as root, and is not root's alone: {error}"


def of_asker(policy: Policy, asker: Asker) -> Iterator[tuple[bool, str]]:
    """For each key that has rules whether `asker` may have it, and by which rule."""
    for key in dict.fromkeys(rule.key for rule in policy.rules):
        rule = policy.rule_for(key, asker)
        by = f"by {asker.program}" if asker.program else "by a program that can't be seen"
        if rule:
            yield True, f"{key}: rule {rule.number} permits it to {asker.name} {by}"
        else:
            yield False, f"{key}: no rule permits it to {asker.name} {by}"


def _told(rule: Rule) -> str:
    return f"rule {rule.number}, {rule.key}, from {rule.backend.setting}"


def _delivered(rule: Rule, errors: int) -> str:
    given = delivery.fetch(rule, errors)
    told = f"{given.public.bits} {given.public.fingerprint()} ({given.public.kind})"
    if given.expected:
        return f"{told}, as in {SYSTEM_FILE}"
    return f"{told}; whether it's the right one can't be told: {SYSTEM_FILE} has no {rule.key}"
