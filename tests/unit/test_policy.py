"""/etc/kagent/provision.toml: what is a policy, and what a mistake in it is answered with."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from kagent.provision.backends import Command, Credential, File, NotRootsOwn, check_only_root_writes
from kagent.provision.policy import Policy, PolicyError, Requester

GOOD = """
[[rule]]
key = "kagent:deploy"
users = ["root"]
programs = ["/usr/bin/python3"]
lifetime = "1h30m"
from = { systemd-creds = "/etc/kagent/deploy" }

[[rule]]
key = "kagent:deploy"
groups = ["root"]
lifetime = "5m"
timeout = "30s"
from = { command = ["/usr/bin/vault", "kv", "get", "deploy"] }
passphrase = { file = "/etc/kagent/passphrase" }
"""
RULE = """
[[rule]]
key = "kagent:deploy"
users = ["root"]
lifetime = "1h"
from = { file = "/etc/kagent/deploy" }
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a policy has to be root's")


def policy(folder: Path, text: str) -> Policy:
    file = folder / "provision.toml"
    file.write_text(text)
    file.chmod(0o600)
    return Policy.read(file)


def test_read(folder: Path) -> None:
    first, second = policy(folder, GOOD).rules
    assert (first.lifetime, first.timeout, first.passphrase) == (5400, 10, None)
    assert first.backend == Credential("/etc/kagent/deploy")
    assert second.backend == Command(("/usr/bin/vault", "kv", "get", "deploy"))
    assert (second.timeout, second.passphrase) == (30, File("/etc/kagent/passphrase"))


def test_who_may_have_it(folder: Path) -> None:
    """The first rule that fits; by name, by group, by program."""
    rules = policy(folder, GOOD)
    root, nobody = Requester(0, "/usr/bin/python3"), Requester(65534, "/usr/bin/python3")
    first, second = rules.rules
    assert rules.rule_for("kagent:deploy", root) == first
    assert rules.rule_for("kagent:deploy", Requester(0, "/usr/bin/git")) == second
    assert rules.rule_for("kagent:deploy", Requester(0, "")) == second
    assert rules.rule_for("kagent:deploy", nobody) is None
    assert rules.rule_for("kagent:other", root) is None
    unknown = Requester(12345, "/usr/bin/python3")
    assert rules.rule_for("kagent:deploy", unknown) is None
    assert unknown.name == "12345"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"1h"', '"1 hour"', "rule 1: lifetime: expected a time"),
        ('"1h"', '"0"', "rule 1: lifetime: no time at all"),
        ('"1h"', "3600", "rule 1: lifetime: expected a time as in '1h'"),
        ("users", "user", "rule 1: unknown setting user; there are"),
        ('users = ["root"]', "", "rule 1: users or groups must say"),
        ('["root"]', '"root"', "rule 1: users: expected a list of texts"),
        ('["root"]', "[]", "rule 1: users: expected a list of texts"),
        ('["root"]', '[""]', "rule 1: users: expected a text"),
        ('key = "kagent:deploy"', "", "rule 1: key is missing"),
        ("[[rule]]", "[rule]", r"rules are written as \[\[rule\]\]"),
        ("[[rule]]", "[[rules]]", r"only \[\[rule\]\] can be here, not rules"),
        ("{ file", "{ vault", "rule 1: from: expected { X = … }, where X is one of command"),
        ('"/etc/kagent/deploy" }', '"deploy" }', "rule 1: from: expected a path from the root"),
        ('{ file = "/etc/kagent/deploy" }', '"/deploy"', "rule 1: from: expected { X"),
        ('{ file = "/etc', '{ command = "/etc', "rule 1: from: expected a list of texts"),
        ("lifetime", 'timeout = "51s"\nlifetime', "rule 1: timeout: at most 50 seconds"),
        ("lifetime", 'programs = ["git"]\nlifetime', "rule 1: programs: expected a path"),
        ("key =", "key :", "provision.toml: "),
    ],
)
def test_mistakes(folder: Path, old: str, new: str, told: str) -> None:
    """Each says where it is and what is expected; and nobody gets anything meanwhile."""
    assert policy(folder, RULE).rules
    with pytest.raises(PolicyError, match=told):
        policy(folder, RULE.replace(old, new, 1))


def test_missing_and_of_others(folder: Path) -> None:
    file = folder / "provision.toml"
    with pytest.raises(PolicyError, match=f"there is no {file}"):
        Policy.read(file)
    file.write_text(RULE)
    below = folder / "below"
    below.mkdir()
    link = below / "link"
    link.symlink_to(file)
    check_only_root_writes(link)
    nobody = pwd.getpwnam("nobody").pw_uid
    for path, mode, uid in ((file, 0o666, 0), (file, 0o644, nobody), (below, 0o755, nobody)):
        os.chown(path, uid, 0)
        path.chmod(mode)
        with pytest.raises(NotRootsOwn, match=f"{path} must be root's"):
            check_only_root_writes(link)
        os.chown(path, 0, 0)
        path.chmod(0o755)
