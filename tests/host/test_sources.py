"""Keys that come from where kagent.toml says, at the first signature, and go when unused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import Agent, Person, agent

# Writes down what it is asked, and then does what the test wants.
ASKPASS = """\
#!/bin/sh
cd "${0%/*}"
echo "$1" >>asked
echo >>count
. ./behaviour
"""
PASSPHRASE = "correct horse"


class Home:
    """A person with an agent, keys with sources, and an ssh-askpass."""

    def __init__(self, person: Person, running: Agent) -> None:
        self.person, self.agent = person, running

    def answers(self, behaviour: str) -> None:
        """What ssh-askpass is to do from now on, in words of the shell."""
        self.person.file("behaviour", behaviour)

    @property
    def asked(self) -> int:
        """How often the user was."""
        counted = self.person.home / "count"
        return len(counted.read_text()) if counted.exists() else 0

    @property
    def question(self) -> str:
        """All that the user was asked."""
        return (self.person.home / "asked").read_text()

    def signs(self, key: Path) -> bool:
        """Whether the agent signs with it."""
        told = self.agent.run("ssh-add", "-T", f"{key}.pub", check=False)
        return told.returncode == 0

    def listed(self) -> str:
        """What is listed, with where it lives."""
        return self.agent.run("kagent-add", "-l", "-v", check=False).stdout


def configure(person: Person, *entries: str) -> None:
    """Have these [[identity]] tables, and nothing else."""
    folder = person.home / ".config/kagent"
    if not folder.exists():
        person.run("mkdir", "-p", folder)
    person.file(".config/kagent/kagent.toml", "".join(f"[[identity]]\n{one}\n" for one in entries))


def entry(key: Path, *lines: str) -> str:
    """A table for a key file."""
    return "\n".join((f'public = "{key}.pub"', f'file = "{key}"', *lines))


@pytest.fixture
def home(person: Person) -> Iterator[Home]:
    with living(person) as home:
        yield home


@contextmanager
def living(person: Person, *options: str) -> Iterator[Home]:
    program = person.file("askpass", ASKPASS, mode=0o700)
    person.file("behaviour", f"echo '{PASSPHRASE}'")
    variables = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    with agent(person, "kagent", *options, env=variables) as running:
        yield Home(person, running)


def test_asked_for_once_at_the_first_use(home: Home, person: Person) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    assert "key käse (ED25519)" in home.listed(), home.agent.logged()
    assert f"custody file {key}" in home.listed()
    assert home.asked == 0
    assert home.signs(key)
    assert home.signs(key)
    assert home.asked == 1
    first, second, *told = home.question.splitlines()
    assert first == "Enter passphrase for key key käse"
    assert second.startswith("Key fingerprint SHA256:")
    assert any("Asked by ssh-add" in line for line in told)
    assert "custody sealed" in home.listed()
