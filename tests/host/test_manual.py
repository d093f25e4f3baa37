"""What README and the manual pages have people type, in a home with OpenSSH's programs.

Other examples stand beside the tests of what they are about: tests/unit/test_manual.py finds them.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from tests.support.manual import CHECKOUT, block
from tests.support.programs import PATH, RSA, Agent, Person, agent, sshd

PASSPHRASE = "correct horse"


def at_home(person: Person, *options: str, passphrase: str = "") -> Path:
    """A key where keys are."""
    person.run("mkdir", "-p", "-m", "700", ".ssh")
    return person.key(".ssh/id_ed25519", *options, passphrase=passphrase, comment="me@laptop")


def test_ssh_just_works(person: Person, folder: Path) -> None:
    key = at_home(person, passphrase=PASSPHRASE)
    askpass = person.file("askpass", f"#!/bin/sh\necho >>asked\necho '{PASSPHRASE}'\n", 0o700)
    variables = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    public = key.with_suffix(".pub").read_text()
    with agent(person, env=variables) as kagent, sshd(person, folder / "sshd", public) as server:
        ssh, *words = server.ssh(person)
        login = shlex.join([shutil.which(ssh, path=PATH) or ssh, *words, "echo", "in"])
        person.run("mkdir", "bin")
        person.file("bin/ssh", f'#!/bin/sh\n[ "$*" = host ] && exec {login}\n', 0o755)
        typed = block("README.md", "kagentctl remember ~/.ssh/id_ed25519")
        told = kagent.run("sh", "-euc", typed, PATH=f"{person.home}/bin:{PATH}").stdout
        assert told.endswith("\nin\n")
    assert (person.home / "asked").read_text() == "\n"


def test_an_idle_key(kagent: Agent) -> None:
    at_home(kagent.person)
    kagent.run("sh", "-euc", block("kagent-add.1", "kagent-add --idle"))
    assert "removed when not used for 00:30:00" in kagent.run("kagent-add", "-l", "-v").stdout


def test_the_agent_that_there_is_goes_behind(person: Person) -> None:
    at_home(person)
    typed = block("kagent.1", 'eval "$(kagent -s --behind')
    with agent(person, "ssh-agent") as other:
        other.run("ssh-add", "-q", ".ssh/id_ed25519")
        told = other.run("sh", "-euc", f"{typed} kagent-add -l -v && kagent -k").stdout
    assert f"custody behind {other.socket}\n" in told


def test_the_configuration(person: Person) -> None:
    at_home(person, *RSA)
    person.run("mkdir", "-p", "-m", "700", ".config/kagent")
    person.file(".config/kagent/kagent.toml", block("kagent.1", 'custody = "sealed"'))
    assert "6 settings, 0 identities\n" in person.run("kagentctl", "check").stdout
    with agent(person) as kagent:
        kagent.run("ssh-add", "-q", ".ssh/id_ed25519")
        assert "custody sealed\n" in kagent.run("kagent-add", "-l", "-v").stdout


def test_where_the_key_is(kagent: Agent) -> None:
    key = at_home(kagent.person)
    kagent.run("ssh-add", "-q", key)
    told = kagent.run("sh", "-euc", block("kagent.7", "kagent-add -l -v")).stdout
    assert "custody sealed\n" in told
    assert "\nSession Keyring\n" in told
    kagent.run("sh", "-euc", block("kagentctl.1", "kagentctl show --svg"))
    assert (kagent.person.home / "keys.svg").read_text().startswith("<svg ")


def test_why(kagent: Agent) -> None:
    key = at_home(kagent.person)
    kagent.run("ssh-add", "-T", f"{key}.pub", check=False)
    told = kagent.run("sh", "-euc", block("kagent.7", "kagentctl why")).stdout
    assert " a signature was refused: " in told


def test_what_the_administrator_writes() -> None:
    """A rule, which a story of tests/system puts to work, and a file that is shipped."""
    assert block("kagent-provision.8", "[[rule]]") in block("kagent-provision.8", "apt-get install")
    *_, shipped = (CHECKOUT / "contrib/request-key.d/kagent.conf").read_text().splitlines()
    assert block("kagent-provision.8", "create asymmetric").split() == shipped.split()
