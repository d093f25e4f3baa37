"""/etc/kagent/provision.toml: what is a policy, and what a mistake in it is answered with."""

from __future__ import annotations

import grp
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
        (RULE, "rule = {}", r"rules are written as \[\[rule\]\]"),
        (RULE, "rule = [{}, 1]", r"rules are written as \[\[rule\]\]"),
        (RULE, f"rule = {'[' * 100_000}", "too many to be read"),
        ('{ file = "/etc/kagent/deploy" }', '["file"]', "rule 1: from: expected { X"),
        ('deploy" }', 'deploy", command = ["/a"] }', "rule 1: from: expected { X"),
    ],
)
def test_mistakes(folder: Path, old: str, new: str, told: str) -> None:
    """Each says where it is and what is expected; and nobody gets anything meanwhile."""
    assert policy(folder, RULE).rules
    with pytest.raises(PolicyError, match=told) as caught:
        policy(folder, RULE.replace(old, new, 1))
    assert str(caught.value).startswith(f"{folder / 'provision.toml'}: ")


def test_the_shortest_and_the_longest_time(folder: Path) -> None:
    [rule] = policy(folder, RULE.replace('"1h"', '"1s"\ntimeout = "50s"')).rules
    assert (rule.lifetime, rule.timeout) == (1, 50)


def test_a_group_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(gid: int) -> grp.struct_group:
        raise KeyError(gid)

    monkeypatch.setattr(grp, "getgrgid", unknown)
    assert "0" in Requester(0, "").groups


def test_missing_and_of_others(folder: Path) -> None:
    file = folder / "provision.toml"
    with pytest.raises(PolicyError, match=f"there is no {file}"):
        Policy.read(file)
    with pytest.raises(PolicyError, match="directory"):
        Policy.read(folder)
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
        with pytest.raises(PolicyError, match=f"{path} must be root's"):
            Policy.read(link)
        os.chown(path, 0, 0)
        path.chmod(0o755)
