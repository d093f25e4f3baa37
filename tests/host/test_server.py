"""The agent against clients that behave badly, and its own processes' ends."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from base64 import b64decode
from pathlib import Path

import pytest

from kagent.custody.identity import Custody, Identity
from kagent.keyctl import SESSION_KEYRING, Keyring
from kagent.protocol.messages import Extension, Lock, SignRequest, Success, encode
from kagent.protocol.publickey import PublicKey
from tests.hostile.asking import Pair, certificate_of_a_server
from tests.support.frames import A_KEY, FAILURE, LISTING, NOTHING, answer, ask, explained
from tests.support.injection import python_in
from tests.support.programs import SECONDS, Agent, Person, agent, wait_until

A_TYPE = b"\0\0\0\7ssh-rsa"


def keys_held() -> list[str]:
    """The descriptions of all keys that the session keyring leads to."""

    def below(keyring: Keyring) -> list[str]:
        found = []
        for key, about in keyring.described():
            found.append(f"{about.type}: {about.description}")
            if about.type == "keyring" and not about.description.startswith("_uid"):
                found += below(Keyring(key.serial))
        return found

    return below(Keyring.special(SESSION_KEYRING))


@pytest.mark.parametrize("number", [0, 1, 2, 7, 10, 15, 24, 28, 30, 128, 255])
def test_unknown_messages_are_refused(kagent: Agent, number: int) -> None:
    with kagent.connect() as stream:
        assert ask(stream, struct.pack(">IB", 1, number)) == FAILURE
        assert ask(stream, LISTING) == NOTHING


@pytest.mark.parametrize("body", [b"", A_TYPE, b"\xff\xff\xff\xff", bytes(9)])
@pytest.mark.parametrize("number", [13, 17, 18, 20, 21, 22, 23, 25, 26, 27])
def test_damaged_messages_are_refused(kagent: Agent, number: int, body: bytes) -> None:
    if number == 22 and body == A_TYPE:
        pytest.skip("well-formed: that locks with this passphrase")
    with kagent.connect() as stream:
        frame = struct.pack(">IB", 1 + len(body), number) + body
        assert ask(stream, frame) == FAILURE
        assert ask(stream, LISTING) == NOTHING


def test_an_unknown_key_does_not_sign(kagent: Agent) -> None:
    with kagent.connect() as stream:
        blob = b"\0\0\0\7ssh-rsa\0\0\0\1\3\0\0\0\1\x23"
        assert ask(stream, encode(SignRequest(blob, b"data", 2))) == FAILURE
        assert "no such key" in explained(stream)
        assert f"key={PublicKey.parse(blob).fingerprint()}" in kagent.logged()


def test_each_refusal_is_one_line(kagent: Agent) -> None:
    """Of a key that isn't there, of an agent that is locked, of what is no request."""
    unknown = encode(SignRequest(b"\0\0\0\7ssh-rsa\0\0\0\1\3\0\0\0\1\x23", b"data", 2))
    damaged = struct.pack(">IB", 3, 13) + b"\0\0"
    with kagent.connect() as stream:
        for before, frame in ((b"", unknown), (encode(Lock(b"secret")), unknown), (b"", damaged)):
            if before:
                assert ask(stream, before) == encode(Success())
            lines = kagent.logged().count("refused")
            assert ask(stream, frame) == FAILURE
            assert kagent.logged().count("refused") == lines + 1


# A fault of the front's own.
BREAK = """
from kagent.front.sign_workers import SignWorkers
async def fail(*_):
    raise OSError("broken")
SignWorkers.sign = fail
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may get into the front")
def test_what_was_not_signed_is_not_told_as_signed(kagent: Agent) -> None:
    kagent.person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    kagent.run("ssh-add", "-q", "key")
    blob = PublicKey.parse(b64decode((kagent.person.home / "key.pub").read_text().split()[1])).blob
    with kagent.connect() as stream:
        assert ask(stream, encode(SignRequest(blob, b"data", 0)))[4] == 14
        python_in(kagent.front, BREAK)
        assert ask(stream, encode(SignRequest(blob, b"data", 0))) == b""
    wait_until(lambda: "result=failed" in kagent.logged())
    assert kagent.logged().count("result=signed") == 1


@pytest.mark.parametrize("blob", [b"", A_TYPE, A_TYPE + b"\xff" * 4, b"\0\0\0\4none"])
def test_what_is_no_key_does_not_sign_either(kagent: Agent, blob: bytes) -> None:
    with kagent.connect() as stream:
        assert ask(stream, encode(SignRequest(blob, b"data", 8))) == FAILURE
        assert "no such key" in explained(stream)
        assert "key=unknown" in kagent.logged()


def test_a_key_that_is_none_is_refused(kagent: Agent) -> None:
    with kagent.connect() as stream:
        assert ask(stream, A_KEY) == FAILURE
        assert "not a valid ssh-rsa key" in explained(stream)
        assert ask(stream, LISTING) == NOTHING
    wait_until(lambda: kagent.children == [kagent.front])


@pytest.mark.parametrize("length", [0, 256 * 1024 + 1, 2**32 - 1])
@pytest.mark.parametrize("number", [11, 17])
def test_impossible_lengths_end_the_connection(kagent: Agent, length: int, number: int) -> None:
    with kagent.connect() as stream:
        assert ask(stream, struct.pack(">IB", length, number)) == b""
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == NOTHING


def test_the_largest_message_is_read(kagent: Agent) -> None:
    with kagent.connect() as stream:
        assert ask(stream, struct.pack(">IB", 256 * 1024, 200) + bytes(256 * 1024 - 1)) == FAILURE
        assert ask(stream, struct.pack(">IB", 256 * 1024, 17) + bytes(256 * 1024 - 1)) == FAILURE
        assert ask(stream, LISTING) == NOTHING


def test_requests_come_in_pieces_and_heaps(kagent: Agent) -> None:
    with kagent.connect() as stream:
        for byte in LISTING + A_KEY:
            stream.sendall(bytes((byte,)))
            time.sleep(0.001)
        assert answer(stream) == NOTHING
        assert answer(stream) == FAILURE
        stream.sendall((LISTING + A_KEY) * 10)
        for expected in (NOTHING, FAILURE) * 10:
            received = b""
            while len(received) < len(expected):
                received += stream.recv(len(expected) - len(received))
            assert received == expected


def test_who_stalls_in_the_middle_of_a_key_stops_nobody(kagent: Agent) -> None:
    """One process's keys are waited for one at a time; when it goes, no worker and no key stays."""
    stalled = [kagent.connect() for _ in range(5)]
    for stream in stalled:
        stream.sendall(A_KEY[:-3])
    wait_until(lambda: len(kagent.children) == 2)
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == NOTHING
        assert ask(stream, A_KEY) == FAILURE
    wait_until(lambda: len(kagent.children) == 2)
    for stream in stalled:
        stream.close()
    wait_until(lambda: kagent.children == [kagent.front])
    assert not [name for name in keys_held() if not name.startswith("keyring:")]


def test_a_worker_that_is_killed_ends_that_connection_only(kagent: Agent) -> None:
    with kagent.connect() as stream, kagent.connect() as other:
        stream.sendall(A_KEY[:-3])
        wait_until(lambda: len(kagent.children) == 2)
        [worker] = set(kagent.children) - {kagent.front}
        os.kill(worker, 9)
        assert answer(stream) == FAILURE
        assert answer(stream) == b""
        assert ask(other, LISTING) == NOTHING


def test_who_begins_many_keys_keeps_nobody_out(kagent: Agent) -> None:
    """Their own process's other keys neither, if these are all there."""
    stalled = [kagent.connect() for _ in range(80)]
    for stream in stalled:
        stream.sendall(A_KEY[:-3])
    with kagent.connect() as stream:
        for _ in range(3):
            assert ask(stream, A_KEY) == FAILURE
            assert "not a valid ssh-rsa key" in explained(stream)
    assert len(kagent.children) <= 2
    for stream in stalled:
        stream.close()
    wait_until(lambda: kagent.children == [kagent.front])


def test_the_front_is_no_program_of_its_own(kagent: Agent) -> None:
    """It never starts: who runs as the same user would have a moment to get hold of it."""
    for _ in range(2):
        front, keeper = (
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (kagent.front, kagent.keeper)
        )
        assert front == keeper
        first = kagent.front
        os.kill(first, 9)
        wait_until(lambda first=first: kagent.front not in (0, first))


def test_a_forged_record_counts_for_nothing(kagent: Agent) -> None:
    """Every process of a login can write into its anchor: constraints may not depend on it."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)
    anchor = Keyring.create("kagent:session", Keyring.special(SESSION_KEYRING))
    for custody in Custody:
        forged = Identity(blob, "forged", custody)
        anchor.add("user", forged.description, forged.write())
        with kagent.connect() as stream:
            assert ask(stream, LISTING) == NOTHING
            assert ask(stream, encode(SignRequest(blob, b"data", 0))) == FAILURE
            assert "no such key" in explained(stream)


def test_a_front_that_dies_is_replaced(kagent: Agent) -> None:
    first = kagent.front
    os.kill(first, 11)
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == NOTHING
    assert kagent.front != first
    assert "the front has ended" in kagent.logged()


def test_fronts_that_die_and_never_serve_end_the_agent(person: Person) -> None:
    """One that has served stays, with its keys: see hostile/test_load.py."""
    code = "import os\nfrom kagent.front import life\nlife.run = lambda *_: os._exit(1)\n"
    socket = person.home / "socket"
    told = person.run("kagent", "-D", "-a", socket, check=False, **person.changed_kagent(code))
    assert told.returncode == 1
    assert "the front doesn't stay up; giving up" in told.stderr
    assert not socket.exists()


@pytest.mark.parametrize("which", ["keeper", "process in the foreground"])
def test_no_process_is_left_when_one_is_killed(kagent: Agent, which: str) -> None:
    with kagent.connect() as stream:
        stream.sendall(A_KEY[:-3])
        wait_until(lambda: len(kagent.children) == 2)
        processes = [kagent.keeper, *kagent.children]
        os.kill(kagent.keeper, signal.SIGSTOP)  # it needn't do anything for that
        os.kill(kagent.keeper if which == "keeper" else kagent.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in processes))
        assert kagent.process.wait(SECONDS) in (128 + signal.SIGKILL, -signal.SIGKILL)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_other_users_are_turned_away(kagent: Agent) -> None:
    """By SO_PEERCRED, where the file's mode would let them in."""
    kagent.socket.chmod(0o666)
    kagent.person.home.chmod(0o755)
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(bytes((0, 0, 0, 1, 11))); print(s.recv(99))"
    )
    command = ["/usr/bin/python3", "-c", program, str(kagent.socket)]
    told = subprocess.run(command, user=65534, group=65534, capture_output=True, text=True)
    ended = ("ConnectionResetError", "BrokenPipeError")
    assert told.stdout == "b''\n" or any(error in told.stderr for error in ended)
    assert "uid mismatch" in kagent.logged()
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == NOTHING


def test_its_processes_leave_no_core_dumps(kagent: Agent) -> None:
    for pid in (kagent.keeper, kagent.front):
        assert Path(f"/proc/{pid}/limits").read_text().count("Max core file size        0") == 1


def test_descriptors_do_not_pile_up(kagent: Agent) -> None:
    def open_files() -> list[int]:
        pids = (kagent.keeper, kagent.front)
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids]

    def visit() -> None:
        with kagent.connect() as stream:
            assert ask(stream, LISTING) == NOTHING
            assert ask(stream, A_KEY) == FAILURE

    visit()
    wait_until(lambda: kagent.children == [kagent.front])
    before = open_files()
    for _ in range(20):
        visit()
    wait_until(lambda: kagent.children == [kagent.front])
    wait_until(lambda: all(now <= then for then, now in zip(before, open_files(), strict=True)))


def test_debug_says_what_is_refused(kagent: Agent) -> None:
    with agent(kagent.person, "kagent", "-d") as talkative, talkative.connect() as stream:
        assert ask(stream, encode(Extension("forged\nline@example.org", b""))) == FAILURE
        wait_until(lambda: r"forged\nline" in talkative.logged())


def test_long_records_of_others_keep_no_key_out(kagent: Agent) -> None:
    """Whoever is in the session can write to the anchor, and more than an answer has room for."""
    if os.getuid() != 0:
        pytest.skip("an ordinary user's quota has no room for that without a big_key")
    key = kagent.person.key("key")
    kagent.run("ssh-add", "-q", key)
    anchor = Keyring.create("kagent:session", Keyring.special(SESSION_KEYRING))
    certificate = certificate_of_a_server()
    for size in (10, *[32_000] * 9):
        blob = Pair.new().blob
        record = Identity(blob, "x" * size, Custody.KERNEL, order=1)
        anchor.add("asymmetric", record.description, certificate)
        anchor.add("user", record.description, record.write())
    listed = kagent.run("ssh-add", "-l").stdout
    assert " key käse " in listed
    assert f" {'x' * 10} " in listed
    assert listed.count("xx ") < 10
    assert " key käse" in kagent.run("kagentctl", "show").stdout
    assert "than have room in an answer" in kagent.logged()
