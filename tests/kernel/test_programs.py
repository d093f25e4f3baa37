"""Other programs that people use with an agent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kernel import keys
from tests.support.programs import Agent, sshd

PARAMIKO = """
import sys, paramiko
client = paramiko.SSHClient()
client.load_host_keys(sys.argv[1])
client.connect("127.0.0.1", int(sys.argv[2]), sys.argv[3], look_for_keys=False)
print(client.exec_command("echo hello")[1].read().decode(), end="")
"""

ASYNCSSH = """
import asyncio, os, sys, asyncssh
async def main():
    agent = os.environ["SSH_AUTH_SOCK"]
    async with asyncssh.connect("127.0.0.1", int(sys.argv[2]), username=sys.argv[3],
            known_hosts=sys.argv[1], agent_path=agent, config=None) as client:
        print((await client.run("echo hello", check=True)).stdout, end="")
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [PARAMIKO, ASYNCSSH], ids=["paramiko", "asyncssh"])
def test_other_clients(kagent: Agent, folder: Path, program: str) -> None:
    person = kagent.person
    kagent.run("ssh-add", person.file("key", keys.rsa(2048)))
    public = keys.rsa(2048).with_suffix(".pub").read_text()
    with sshd(person, folder / "sshd", public) as server:
        words = [server.folder / "known_hosts", str(server.port), person.name]
        assert kagent.run(sys.executable, "-c", program, *words).stdout == "hello\n"


def test_signed_files(kagent: Agent) -> None:
    person = kagent.person
    kagent.run("ssh-add", person.file("key", keys.rsa(3072)))
    public = person.file("key.pub", keys.rsa(3072).with_suffix(".pub"))
    (person.home / "key").unlink()
    signers = person.file("signers", f"me {public.read_text()}")
    signed = kagent.run("ssh-keygen", "-Y", "sign", "-f", public, "-n", "file", input="a text")
    signature = person.file("signature", signed.stdout)
    verify = ("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "me", "-n", "file")
    person.run(*verify, "-s", signature, input="a text")
    assert person.run(*verify, "-s", signature, input="a test", check=False).returncode == 255


def test_signed_commits(kagent: Agent) -> None:
    person = kagent.person
    kagent.run("ssh-add", person.file("key", keys.rsa(2048)))
    public = keys.rsa(2048).with_suffix(".pub")
    settings = {
        "user.name": "Alice",
        "user.email": "alice@example.org",
        "gpg.format": "ssh",
        "user.signingkey": f"key::{public.read_text().strip()}",
        "gpg.ssh.allowedSignersFile": person.file(
            "signers", f"alice@example.org {public.read_text()}"
        ),
    }
    for name, value in settings.items():
        person.run("git", "config", "--global", name, str(value))
    person.run("git", "init", "-q", "work")
    git = ("git", "-C", "work")
    kagent.run(*git, "commit", "-q", "-S", "--allow-empty", "-m", "signed by the kernel")
    told = person.run(*git, "verify-commit", "HEAD")
    assert 'Good "git" signature for alice@example.org' in told.stderr
