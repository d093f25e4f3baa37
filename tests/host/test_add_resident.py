"""kagent-add -K and ssh-add -K: keys that a FIDO token has itself.

No test provider of OpenSSH's has such keys, so a program in the place of ssh-sk-helper answers.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.protocol.constraints import Confirm, Lifetime, SkProvider
from kagent.protocol.messages import AddIdConstrained, decode
from kagent.protocol.privatekey import PRIVATE_KEY
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import BYTE, STRING, TEXT, UINT32
from tests.machine.openssh import programs
from tests.support.frames import FAILURE
from tests.support.programs import Person
from tests.support.recorder import Recorder, recorder
from tests.support.token_keys import sk_ecdsa, sk_ed25519

HELPER = """\
#!/usr/bin/python3 -SE
import sys
length = int.from_bytes(sys.stdin.buffer.read(4), "big")
with open("request", "wb") as request, open("answer", "rb") as answer:
    request.write(sys.stdin.buffer.read(length))
    sys.stdout.buffer.write(answer.read())
"""
VERSION, ERROR, LOAD_RESIDENT = 5, 0, 3


class Token:
    """What stands for the helper and the token."""

    def __init__(self, person: Person, agent: Recorder) -> None:
        person.file("helper", HELPER, mode=0o700)
        self.agent = agent
        self._person = person
        self._request: Path = person.home / "request"

    def answers(self, kind: int, contents: bytes) -> None:
        answer = STRING.write(BYTE.write(VERSION) + UINT32.write(kind) + contents)
        self._person.file("answer", answer)

    def run(
        self, program: str, *words: str, **options: str
    ) -> tuple[subprocess.CompletedProcess[str], bytes, list[bytes]]:
        """What the program says, asks the helper and sends to the agent."""
        options = {"SSH_SK_HELPER": "./helper", "input": "1234\n", **options}
        told, sent = self.agent.run(program, "-K", *words, **options)
        return told, self._request.read_bytes(), sent

    def same(self, *words: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Both programs: same words, same exit code, same request to the helper."""
        theirs, their_request, _ = self.run("ssh-add", *words, **options)
        ours, our_request, _ = self.run("kagent-add", *words, **options)
        assert our_request == their_request
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
        assert ours.stderr == theirs.stderr
        return ours


@pytest.fixture
def token(person: Person) -> Iterator[Token]:
    with recorder(person) as agent:
        yield Token(person, agent)


def test_resident_keys(token: Token) -> None:
    keys = (sk_ed25519("ssh:one"), sk_ecdsa("ssh:two"))
    records = [STRING.write(PRIVATE_KEY.write(key)) + STRING.write(b"") * 2 for key in keys]
    token.answers(LOAD_RESIDENT, b"".join(records))
    told = token.same().stderr
    for key, kind in zip(keys, ("ED25519-SK", "ECDSA-SK"), strict=True):
        fingerprint = PublicKey.parse(key.public_blob).fingerprint()
        assert f"Resident identity added: {kind} {fingerprint}\n" in told
    assert "MD5:" in token.same("-E", "md5", "-c").stderr
    assert token.same("-q", "-S", "/lib/some.so").stderr == "Enter PIN for authenticator: "
    assert token.same("-q", SSH_SK_PROVIDER="/lib/other.so", input="\n").returncode == 0
    token.agent.answer = FAILURE
    assert token.same().returncode == 1


def test_how_resident_keys_are_added(token: Token) -> None:
    """The application is the comment since OpenSSH 9.4; before, there was none."""
    key = sk_ed25519("ssh:one")
    token.answers(LOAD_RESIDENT, STRING.write(PRIVATE_KEY.write(key)) + STRING.write(b"") * 2)
    told, _, (payload,) = token.run("kagent-add", "-t", "5m", "-c", "-S", "/lib/some.so")
    constraints = (Lifetime(300), Confirm(), SkProvider("/lib/some.so"))
    assert decode(payload) == AddIdConstrained(key, "ssh:one", constraints)
    assert "Lifetime set to 00:05:00\nThe user must confirm" in told.stderr


def test_without_a_pin(token: Token) -> None:
    """-P, of OpenSSH 10.6 and later."""
    key = sk_ed25519("ssh:one")
    token.answers(LOAD_RESIDENT, STRING.write(PRIVATE_KEY.write(key)) + STRING.write(b"") * 2)
    newest = str(programs() / "ssh-add")
    theirs, ours = (token.run(program, "-P", input="") for program in (newest, "kagent-add"))
    assert (ours[0].returncode, ours[0].stderr) == (theirs[0].returncode, theirs[0].stderr)
    assert ours[0].returncode == 0
    assert ours[1:] == theirs[1:]


def test_no_resident_keys(token: Token) -> None:
    token.answers(LOAD_RESIDENT, b"")
    assert token.same().returncode == 1
    for code, reason in ((60, "device not found"), (59, "requested feature not supported")):
        token.answers(ERROR, UINT32.write(code))
        told = token.same()
        assert told.returncode == 1
        assert told.stderr.endswith(f"Unable to load resident keys: {reason}\n")
    token.answers(LOAD_RESIDENT, TEXT.write("no key"))
    told, _, sent = token.run("kagent-add")
    assert (told.returncode, sent) == (1, [])
