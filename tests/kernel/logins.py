"""Real logins of the booted machine's two users: through sshd, with PAM and pam_keyinit."""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import PATH, SECONDS, Person, Sshd, sshd

USERS = ("alice", "bob")


class Login:
    """A shell at the other end of an ssh connection, into which commands are typed."""

    def __init__(self, server: Sshd, user: str, key: Path) -> None:
        words = server.ssh(Person(user, 0, 0, key.parent), "-i", str(key))
        self._ssh = subprocess.Popen(
            [*words, f"PATH={PATH} exec sh 2>&1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.type("id -un") == f"{user}\n"

    def type(self, command: str, code: int = 0) -> str:
        """Type a line, and give what it writes, on standard error too."""
        assert self._ssh.stdin
        assert self._ssh.stdout
        self._ssh.stdin.write(f"{command}\nr=$?; echo; echo END $r\n".encode())
        self._ssh.stdin.flush()
        told = ""
        while not re.search(r"\nEND \d+\n$", told):
            ready, _, _ = select.select([self._ssh.stdout], [], [], SECONDS)
            chunk = os.read(self._ssh.stdout.fileno(), 4096) if ready else b""
            assert chunk, f"{command}: no end\n{told}"
            told += chunk.decode()
        text, _, ended = told.rpartition("\nEND ")
        assert int(ended) == code, f"{command}: {told}"
        return text

    def log_out(self) -> None:
        """Type exit, and wait until the connection has ended."""
        self._ssh.communicate(b"exit\n", timeout=SECONDS)


@contextmanager
def logins(folder: Path) -> Iterator[dict[str, Login]]:
    """A login of each user."""
    with server(folder) as (there, key):
        opened = {user: Login(there, user, key) for user in USERS}
        yield opened
        for login in opened.values():
            login.log_out()


@contextmanager
def server(folder: Path) -> Iterator[tuple[Sshd, Path]]:
    """A server with PAM, and a key file that lets every user in."""
    key = folder / "login"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    root = Person("root", 0, 0, folder)
    with sshd(root, folder / "sshd", public, UsePAM="yes") as there:
        yield there, key
