"""What the user is asked: by which program, for which host, and what for."""

from __future__ import annotations

import itertools
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent.jobs.questions import Asker, Binding, ClientProcess, Purpose, Question, Who
from kagent.protocol.messages import Extension, decode
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import STRING, Reader
from kagent.text import shown
from kagent.workers.processes import lineage
from kagent.workers.wording import origin, worded
from tests.support.programs import SECONDS, Person, sshd

# Connects, and stays until the connection ends.
CLIENT = """\
import socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.connect(sys.argv[1])
stream.recv(1)
"""
PYTHON = Path(sys.executable).resolve()
SHELL = Path("/bin/sh").resolve().name


def asker(client: ClientProcess) -> Asker:
    """Who that is, as the front is told."""
    return origin(Who(client, ())).asker


class Door:
    """A socket that tells who comes in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(SECONDS)

    def accept(self) -> tuple[socket.socket, ClientProcess]:
        """The next one, as the front knows it."""
        stream, _ = self._listener.accept()
        stream.settimeout(SECONDS)
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return stream, ClientProcess(struct.unpack("3i", credentials)[0], now())

    def close(self) -> None:
        self._listener.close()


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.fixture
def door(folder: Path) -> Iterator[Door]:
    opened = Door(folder / "door")
    yield opened
    opened.close()


@contextmanager
def let_in(door: Door, *command: str | Path, **options: object) -> Iterator[ClientProcess]:
    """Whom that command lets connect, until the block ends."""
    with subprocess.Popen(command, **options) as process:  # type: ignore[call-overload]
        stream, client = door.accept()
        with stream:
            yield client
        process.wait(SECONDS)


def labels(client: ClientProcess) -> list[str]:
    """From the client up to these tests, and without them."""
    processes = lineage(client)
    assert os.getpid() in [process.pid for process in processes]
    below = itertools.takewhile(lambda process: process.pid != os.getpid(), processes)
    return [process.label for process in below]


def test_a_client_and_what_started_it(door: Door, person: Person) -> None:
    client = person.file("client", f"#!{PYTHON} -I\n{CLIENT}", mode=0o700)
    tool = person.file("tool", f"#!/bin/sh\n{client} {door.path}\n:\n", mode=0o700)
    command = f"cd {tool.parent}; ./tool; :"
    with let_in(door, "sh", "-c", command) as asking:
        assert labels(asking) == [f"{PYTHON.name} {client}", f"{SHELL} ./tool", SHELL]
        told = str(asker(asking))
        assert told.startswith(f"{PYTHON.name} {client} ← {SHELL} ./tool ← {SHELL} ← {PYTHON.name}")
        assert told.endswith(f" (process {asking.pid})")
    assert str(asker(asking)) == f"process {asking.pid}, of which nothing can be seen"


def test_a_name_is_the_programs_and_not_its_own_word(door: Door, person: Person) -> None:
    client = person.file("client", CLIENT)
    with let_in(door, "git", client, door.path, executable=PYTHON) as asking:
        assert labels(asking) == [f"{PYTHON.name} {client}"]


def test_a_program_from_elsewhere_is_shown_with_its_path(door: Door, person: Person) -> None:
    """Whatever it is called, and also if it is not there any more."""
    client = person.file("client", CLIENT)
    program = person.file("git ← zsh\n)", PYTHON, mode=0o700)
    with let_in(door, program, "-I", client, door.path) as asking:
        for _ in range(2):
            [label] = labels(asking)
            assert label == shown(str(program), 40)
            assert label.startswith("/tmp/kagent-")
            assert label.endswith(r"git - zsh\n)")
            program.unlink(missing_ok=True)


def test_of_many_that_started_it_the_nearest_are_shown(door: Door, person: Person) -> None:
    client = person.file("client", CLIENT)
    text = f'[ $1 = 0 ] && exec {PYTHON} {client} {door.path}\nsh "$0" $(($1 - 1))\n:\n'
    nest = person.file("nest", text)
    with let_in(door, "sh", nest, "12") as asking:
        programs = asker(asking).programs
    assert programs == (f"{PYTHON.name} {client}", *[f"{SHELL} {nest}"] * 7, "…")


def test_a_process_that_took_the_number_of_another_is_not_taken_for_it() -> None:
    before = now()
    with subprocess.Popen(["sleep", "1000"]) as late:
        assert asker(ClientProcess(late.pid, now())).programs[0] == "sleep"
        assert asker(ClientProcess(late.pid, before - 10**9)).programs == ()
        late.kill()


def test_a_process_of_another_container_is_said_to_be_one() -> None:
    assert str(asker(ClientProcess(0, now()))) == "a process of another container"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_of_other_users_processes_only_their_own_word_is_known() -> None:
    if as_nobody(lambda: str(Path(f"/proc/{os.getppid()}").exists())) == "False":
        pytest.skip("this machine's /proc hides the processes of others (hidepid)")
    client = ClientProcess(os.getpid(), now())
    name = Path("/proc/self/comm").read_text().strip()
    assert as_nobody(lambda: asker(client).programs[0]) == f"[{name}]"


def as_nobody(do: Callable[[], str]) -> str:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(tell, do().encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with open(told) as answer:
        return answer.read()


@pytest.fixture
def hosts(person: Person, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Four host keys.  The user knows the first by two names, the second by a hashed one and the
    third not at all; the fourth is revoked."""
    monkeypatch.setenv("HOME", str(person.home))
    (person.home / ".ssh").mkdir(mode=0o700)
    keys = []
    for name in ("a", "b", "c", "d"):
        person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", name)
        keys.append((person.home / f"{name}.pub").read_text().strip())
    hashed = person.file("hashed", f"[db.example.org]:2222 {keys[1]}\n")
    person.run("ssh-keygen", "-q", "-H", "-f", hashed)
    known = f"a.example.org,10.0.0.1 {keys[0]}\n@revoked * {keys[3]}\nd {keys[3]}\n"
    person.file(".ssh/known_hosts", known + hashed.read_text())
    return [parse_line(key)[0].blob for key in keys]


def question(*bindings: Binding, **changes: object) -> Question:
    """May these tests log in as git?"""
    asked = Question(
        "me@home", "SHA256:x", ClientProcess(os.getpid(), now()), bindings, Purpose.LOGIN, "git"
    )
    return asked.replace(**changes)


def lines(asked: Question) -> list[str]:
    """Those that tell what for and from where, between the heading and who asks."""
    first, second, *told, asker = worded(asked).prompt.split("\n")
    assert (first, second) == ("Allow use of key me@home?", "Key fingerprint SHA256:x.")
    assert re.match(f"(Asked|Brought) by {re.escape(PYTHON.name)}", asker)
    return told


def test_hosts_are_named_as_the_user_knows_them(person: Person, hosts: list[bytes]) -> None:
    a, b, c, d = (Binding(blob, forwarded=False) for blob in hosts)
    fingerprints = [PublicKey.parse(blob).fingerprint() for blob in hosts]
    unknown = 'Login as "git" on an unknown host with the key'
    assert lines(question(a)) == ['Login as "git" on a.example.org.']
    assert lines(question(b)) == [f"{unknown} {fingerprints[1]}."]
    person.file(".ssh/config", "Host *\n  User x\nHost db\n HostName=DB.example.org\n  Port 2222\n")
    assert lines(question(b)) == ['Login as "git" on [db.example.org]:2222.']
    assert lines(question(c)) == [f"{unknown} {fingerprints[2]}."]
    assert lines(question(d)) == [f"{unknown} {fingerprints[3]}."]
    assert lines(question(Binding(b"no key", False))) == [
        'Login as "git" on an unknown host with a key of an unknown type.'
    ]
    assert lines(question()) == ['Login as "git" on a host that ssh has not named.']


def test_a_forwarded_request_says_where_it_comes_from(hosts: list[bytes]) -> None:
    a, c = Binding(hosts[0], forwarded=True), Binding(hosts[2], forwarded=True)
    end = Binding(hosts[0], forwarded=False)
    far = f"an unknown host with the key {PublicKey.parse(hosts[2]).fingerprint()}"
    nowhere = 'Login as "git" on a host that ssh has not named.'
    assert lines(question(a)) == [nowhere, "FORWARDED: the request comes from a.example.org."]
    assert lines(question(c, end)) == [
        'Login as "git" on a.example.org.',
        f"FORWARDED: the request comes from {far}.",
    ]
    assert lines(question(a, c, end))[1] == (
        f"FORWARDED: the request comes from {far}, through a.example.org."
    )
    assert lines(question(*[a] * 15, c, end))[1] == (
        f"FORWARDED: the request comes from {far}, through a.example.org, …, a.example.org."
    )


def test_what_is_no_login_is_warned_of(hosts: list[bytes]) -> None:
    assert lines(question(purpose=Purpose.SSHSIG)) == [
        'WARNING: not an ssh login, but an ssh signature for "git".'
    ]
    assert lines(question(Binding(hosts[0], True), purpose=Purpose.UNKNOWN)) == [
        "WARNING: not an ssh login, and what is to be signed is of no known kind.",
        "FORWARDED: the request comes from a.example.org.",
    ]


def test_no_text_of_others_makes_a_line_or_hides_one(person: Person, hosts: list[bytes]) -> None:
    binding = Binding(hosts[2], forwarded=True)
    known = parse_line((person.home / "c.pub").read_text())[0].line()
    forged = "x?\nKey fingerprint SHA256:y.\r\u2028\x1b[8m<br>" + " " * 5000 + "x" * 5000 + '"'
    person.file(".ssh/known_hosts", f"{'h' * 5000}\x1b[2J {known}\n")
    for purpose in Purpose:
        text = worded(question(binding, purpose=purpose, comment=forged, name=forged)).prompt
        assert text.count("\n") == 4
        assert text.replace("\n", "").isprintable()
        assert "<" not in text
        assert len(text) < 1000


def test_the_host_that_ssh_goes_to(
    door: Door, person: Person, folder: Path, hosts: list[bytes]
) -> None:
    """By the key that ssh binds its connection to, and the name that it was called by."""
    with sshd(person, folder / "sshd", "") as server:
        person.file(".ssh/known_hosts", server.folder / "known_hosts")
        person.run("ssh-keygen", "-q", "-H", "-f", ".ssh/known_hosts")
        command = server.ssh(person, "-o", f"IdentityAgent={door.path}")
        with person.start(*command, stderr=subprocess.DEVNULL) as ssh:
            stream, client = door.accept()
            with stream:
                length = struct.unpack(">I", stream.recv(4, socket.MSG_WAITALL))[0]
                bound = decode(stream.recv(length, socket.MSG_WAITALL))
                assert isinstance(bound, Extension)
                binding = Binding(STRING.read(Reader(bound.contents)), forwarded=False)
                asked = question(binding, client=client)
                told = worded(asked).prompt.split("\n")[2:]
                unbound = worded(asked.replace(bindings=())).prompt.split("\n")[2]
            ssh.wait(SECONDS)
    assert told[0] == f'Login as "git" on [127.0.0.1]:{server.port}.'
    assert told[1].startswith(f"Asked by ssh ← {PYTHON.name}")
    assert unbound == 'Login as "git" on an unproved host; ssh was told to go to 127.0.0.1.'
