"""The main job: logins through OpenSSH's server, signed by the kernel."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.kernel import keys
from tests.support.programs import Agent, Person, sshd

ALGORITHMS = ("rsa-sha2-256", "rsa-sha2-512")


def public(path: Path) -> str:
    return path.with_suffix(".pub").read_text()


def fingerprint(person: Person, path: Path) -> str:
    return person.run("ssh-keygen", "-l", "-f", path).stdout.split()[1]


@pytest.mark.parametrize("loader", ["ssh-add", "kagent-add"])
def test_login(kagent: Agent, folder: Path, loader: str) -> None:
    """Each size, each algorithm, in turn; the server says which key it has let in."""
    person = kagent.person
    sizes = {bits: keys.rsa(bits) for bits in (2048, 3072, 4096)}
    with sshd(person, folder / "sshd", "".join(map(public, sizes.values()))) as server:
        for number, (bits, path) in enumerate(sizes.items()):
            kagent.run(loader, person.file(f"key-{bits}", path))
            mine = person.file(f"key-{bits}.pub", public(path))
            # Both with each loader; all six pairs between the two of them.
            algorithm = ALGORITHMS[(number + (loader == "ssh-add")) % 2]
            options = ["-i", str(mine), "-o", "IdentitiesOnly=yes"]
            options += ["-o", f"PubkeyAcceptedAlgorithms={algorithm}"]
            told = kagent.run(*server.ssh(person, *options), "echo", "hello")
            assert told.stdout == "hello\n"
            accepted = re.findall(r"Accepted publickey .* RSA (\S+)", server.log.read_text())
            assert accepted[-1] == fingerprint(person, mine)
        kagent.run("ssh-add", "-D")
        refused = kagent.run(*server.ssh(person), "echo", "hello", check=False)
        assert refused.returncode == 255
        assert "Permission denied" in refused.stderr


@pytest.mark.distribution
def test_from_a_shell(person: Person, folder: Path) -> None:
    """As the manual says: eval, load, log in, end."""
    key = person.file("key", keys.rsa(2048))
    with sshd(person, folder / "sshd", public(keys.rsa(2048))) as server:
        login = shlex.join([*server.ssh(person), "echo", "hello"])
        script = f'set -e; eval "$(kagent -s)"; ssh-add {key}; {login}; eval "$(kagent -k)"'
        told = person.run("sh", "-c", script)
    assert re.fullmatch(r"Agent pid (\d+)\nhello\nAgent pid \1 killed\n", told.stdout)


def test_forwarded_agent(kagent: Agent, folder: Path) -> None:
    """From the first host to the second with the agent at home."""
    person = kagent.person
    kagent.run("ssh-add", person.file("key", keys.rsa(2048)))
    with sshd(person, folder / "sshd", public(keys.rsa(2048))) as server:
        second = shlex.join([*server.ssh(person), "echo", "second"])
        told = kagent.run(*server.ssh(person, "-A"), second)
        assert told.stdout == "second\n"
        assert server.log.read_text().count("Accepted publickey") == 2
