"""The sealed custody: keys that the kernel stores and a one-shot process signs with.

Needs no special kernel; the kernel lane runs it too, where some of the keys are the kernel's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kagent.keyctl.syscalls import _KEYCTL as KEYCTL
from kagent.keyctl.syscalls import Operation
from kagent.private.keyfile import parse
from kagent.protocol.messages import SignRequest, encode
from tests.hostile.people import begin_login, forget, somebody
from tests.support.frames import FAILURE, ask, explained
from tests.support.injection import Call, calls_in
from tests.support.programs import PATH, SECONDS, Agent, Person, agent, sshd, wait_until
from tests.support.proving import has_nothing_of

TYPES = {
    "ed25519": ("-t", "ed25519"),
    "nistp256": ("-t", "ecdsa", "-b", "256"),
    "nistp384": ("-t", "ecdsa", "-b", "384"),
    "nistp521": ("-t", "ecdsa", "-b", "521"),
    "rsa2304": ("-t", "rsa", "-b", "2304"),  # a size that no kernel signs with
}
CLIENTS = 8

# What a debugger does first; for each process, whether it may. PTRACE_SEIZE asks what PTRACE_ATTACH
# asks, and doesn't stop the process.
ATTACH = """
import ctypes, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
for pid in map(int, sys.argv[1:]):
    try:
        open(f"/proc/{pid}/mem", "rb").close()
        print("opened", end=" ")
    except PermissionError:
        print("refused", end=" ")
    print("attached" if ptrace(0x4206, pid, 0, 0) == 0 else "refused")
"""


def request(path: Path, data: bytes = b"to be signed") -> bytes:
    return encode(SignRequest(parse(path.read_bytes())[0].public_blob, data, 0))


@pytest.fixture
def counted(person: Person, folder: Path) -> Iterator[Person]:
    """A user whose keys can be counted: what else root runs has none of them."""
    if os.getuid() != 0:
        yield person
        return
    someone = somebody("counted", folder)
    begin_login(someone)
    yield someone
    forget(someone)


def given(counted: Person, person: Person, name: str) -> Path:
    """A key of theirs; made by another, as ssh-keygen wants a user who is in /etc/passwd."""
    path = person.key(name, *TYPES[name])
    counted.file(f"{name}.pub", path.with_suffix(".pub"))
    return counted.file(name, path)


def keys_of(person: Person) -> int:
    """How many keys the kernel counts for that user, whoever may see them."""
    users = Path("/proc/key-users").read_text()
    [count] = re.findall(rf"^\s*{person.uid}:\s+\d+ (\d+)/", users, re.MULTILINE)
    return int(count)


def keys_at_rest(person: Person) -> int:
    """The same, when the kernel has collected what the login's beginning left."""
    last = -1
    while last != (now := keys_of(person)):
        last = now
        time.sleep(0.5)
    return now


def test_login(kagent: Agent, folder: Path) -> None:
    """With each type of key, through OpenSSH's server."""
    person = kagent.person
    paths = [person.key(name, *TYPES[name]) for name in TYPES]
    kagent.run("ssh-add", *paths)
    authorized = "".join(path.with_suffix(".pub").read_text() for path in paths)
    with sshd(person, folder / "sshd", authorized) as server:
        for path in paths:
            path.unlink()
            options = ("-i", f"{path}.pub", "-o", "IdentitiesOnly=yes")
            told = kagent.run(*server.ssh(person, *options), "echo", "hello")
            assert told.stdout == "hello\n"
            print_ = person.run("ssh-keygen", "-l", "-f", f"{path}.pub").stdout.split()[1]
            accepted = re.findall(r"Accepted publickey .* (SHA256\S+)", server.log.read_text())
            assert accepted[-1] == print_


def sign_by_name(kagent: Agent, path: Path) -> None:
    """Sign until the log says who asked: the front waits for that no longer than a second."""
    before = len(kagent.logged())

    def named() -> bool:
        kagent.run("ssh-add", "-T", f"{path}.pub")
        return ' by="ssh-add' in kagent.logged()[before:]

    wait_until(named)


@pytest.mark.native
def test_a_lookout_that_dies_is_replaced(kagent: Agent) -> None:
    path = kagent.person.key("ed25519", *TYPES["ed25519"])
    kagent.run("ssh-add", path)
    for _ in range(2):
        sign_by_name(kagent, path)
        [lookout] = kagent.lookouts
        os.kill(lookout, signal.SIGKILL)
        wait_until(lambda: not kagent.lookouts)


@pytest.mark.native
def test_a_lookout_that_hangs_is_left_with_its_front(kagent: Agent) -> None:
    path = kagent.person.key("ed25519", *TYPES["ed25519"])
    kagent.run("ssh-add", path)
    sign_by_name(kagent, path)
    [lookout] = kagent.lookouts
    os.kill(lookout, signal.SIGSTOP)
    front = kagent.front
    os.kill(front, signal.SIGKILL)
    wait_until(lambda: kagent.front != front)
    sign_by_name(kagent, path)
    wait_until(lambda: lookout not in kagent.lookouts)


LATE = """
import time
from kagent.workers import lookout
run = lookout.run
lookout.run = lambda looking: (time.sleep(2), run(looking))
"""


@pytest.mark.native
def test_a_lookout_that_comes_late(person: Person) -> None:
    """As where imports take long: the first request has who asked in its line all the same."""
    with agent(person, "kagent", env=person.changed_kagent(LATE)) as kagent:
        with kagent.connect() as stream:
            assert ask(stream, encode(SignRequest(b"no key", b"data", 0))) == FAILURE
        [told] = [line for line in kagent.logged().splitlines() if "result=" in line]
        assert " by=" in told


def test_large_signatures_at_once(kagent: Agent) -> None:
    """More than the way to the workers holds: each waits for its turn."""
    path = kagent.person.key("ed25519", *TYPES["ed25519"])
    kagent.run("ssh-add", path)
    frame = request(path, bytes(250_000))

    def sign(_: int) -> int:
        with kagent.connect() as stream:
            return ask(stream, frame)[4]

    with ThreadPoolExecutor(24) as clients:
        assert set(clients.map(sign, range(24))) == {14}, kagent.logged()


@pytest.mark.native
def test_what_is_told_of_it(kagent: Agent) -> None:
    told = kagent.run("kagent-add", "-v", kagent.person.key("nistp384", *TYPES["nistp384"])).stderr
    assert "custody sealed (ecdsa-sha2-nistp384: the kernel can't sign" in told
    assert "custody sealed" in kagent.logged()


@pytest.mark.native
def test_the_largest_key(kagent: Agent) -> None:
    """RSA of 16384 bits, which takes ssh-keygen minutes to make."""
    path = kagent.person.file("key", Path(__file__).with_name("rsa16384"))
    kagent.run("ssh-add", path)
    assert kagent.run("ssh-add", "-l").stdout.startswith("16384 ")
    public = kagent.person.file("key.pub", kagent.run("ssh-add", "-L").stdout)
    kagent.run("ssh-add", "-T", public)


@pytest.mark.native
def test_keys_that_ssh_refuses(kagent: Agent) -> None:
    """As OpenSSH 10: no DSA, and no RSA below 1024 bits."""
    home = kagent.person.home
    kagent.person.run("ssh-keygen", "-q", "-N", "", "-t", "dsa", "-f", home / "dsa")
    assert kagent.run("ssh-add", home / "dsa", check=False).returncode == 1
    assert "'ssh-dss' is not supported" in kagent.logged()


@pytest.mark.native
def test_kernel_custody_alone(person: Person) -> None:
    """kagent --custody kernel refuses what the kernel can't sign with, and says what it can."""
    with agent(person, "kagent", "--custody=kernel") as kagent:
        for name in ("ed25519", "rsa2304"):
            told = kagent.run("kagent-add", person.key(name, *TYPES[name]), check=False)
            assert told.returncode == 1
            assert "kagent: " in told.stderr
        assert kagent.run("ssh-add", "-l", check=False).returncode == 1


@pytest.mark.native
def test_unknown_flags_are_refused(kagent: Agent) -> None:
    """Rather than to sign with another hash than the one that was meant."""
    path = kagent.person.key("rsa2304", *TYPES["rsa2304"])
    kagent.run("ssh-add", path)
    blob = parse(path.read_bytes())[0].public_blob
    with kagent.connect() as stream:
        for flags in (1, 8, 10, 2**31):
            assert ask(stream, encode(SignRequest(blob, b"data", flags))) == FAILURE
            assert "unknown signature flags" in explained(stream)


@pytest.mark.native
def test_a_custody_that_is_none(person: Person) -> None:
    told = person.run("kagent", "--custody", "paper", check=False)
    assert told.returncode == 1
    assert "--custody takes" in told.stderr


@pytest.mark.native
def test_replaced_and_removed(counted: Person, person: Person) -> None:
    """A key is held once, keeps its place, and of a removed one nothing is left."""
    paths = [given(counted, person, name) for name in ("ed25519", "nistp256")]
    with agent(counted) as kagent:
        # Whatever is made at the first requests, as the lookout's session is.
        kagent.run("ssh-add", paths[0])
        kagent.run("ssh-add", "-T", f"{paths[0]}.pub")
        kagent.run("ssh-add", "-D")
        wait_until(lambda: kagent.signers == [])
        before = keys_at_rest(counted)
        for path in (*paths, paths[0]):
            kagent.run("ssh-add", path)
        listed = kagent.run("ssh-add", "-l").stdout.splitlines()
        assert [line.split()[2] for line in listed] == ["ed25519", "nistp256"]
        kagent.run("ssh-add", "-d", paths[0])
        assert kagent.run("ssh-add", "-T", f"{paths[0]}.pub", check=False).returncode == 1
        kagent.run("ssh-add", "-T", f"{paths[1]}.pub")
        kagent.run("ssh-add", "-D")
        assert kagent.run("ssh-add", "-l", check=False).returncode == 1
        wait_until(lambda: kagent.signers == [])
        wait_until(lambda: keys_of(counted) <= before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_gone_with_the_keeper(counted: Person, person: Person, number: int) -> None:
    """However it ends: the kernel destroys what only the keeper possessed."""
    before = keys_at_rest(counted)
    with agent(counted) as kagent:
        kagent.run("ssh-add", *(given(counted, person, name) for name in TYPES))
        assert keys_of(counted) > before
        os.kill(kagent.keeper, number)
        kagent.process.wait(SECONDS)
        wait_until(lambda: keys_of(counted) <= before)


@pytest.mark.native
def test_the_next_front_serves_them(kagent: Agent) -> None:
    path = kagent.person.key("ed25519", *TYPES["ed25519"])
    kagent.run("ssh-add", path)
    first = kagent.front
    os.kill(first, signal.SIGKILL)
    kagent.run("ssh-add", "-T", f"{path}.pub")
    assert kagent.front != first


IMPATIENT = f"""#!{sys.executable}
import sys
from kagent.cli.agent import main
from kagent.workers import sign
sign._IDLE_SECONDS = 0.5
sys.exit(main())
"""


@pytest.mark.native
def test_sign_workers_that_nobody_asks(person: Person) -> None:
    """They end, and their parent; who asks then has new ones, and so has who asks next."""
    path = person.key("ed25519", *TYPES["ed25519"])
    person.file("kagent", IMPATIENT, mode=0o755)
    with agent(person, env={"PATH": f"{person.home}:{PATH}"}) as kagent:
        kagent.run("ssh-add", path)
        for _ in range(2):
            wait_until(lambda: kagent.signers)
            wait_until(lambda: kagent.children == [kagent.front])
            for _ in range(2):
                kagent.run("ssh-add", "-T", f"{path}.pub")
        kagent.run("ssh-add", "-D")
        assert "error" not in kagent.logged()


@pytest.mark.native
def test_a_worker_that_is_killed_fails_its_client_only(kagent: Agent) -> None:
    path = kagent.person.key("ed25519", *TYPES["ed25519"])
    kagent.run("ssh-add", path)
    with kagent.connect() as stream, kagent.connect() as other:
        for worker in kagent.signers:
            os.kill(worker, signal.SIGSTOP)
        stopped = kagent.signers
        for client in (stream, other):
            client.sendall(request(path))
        for worker in stopped:
            os.kill(worker, signal.SIGKILL)
        # Whether a stopped worker had taken the request or not: an answer, and the agent goes on.
        for client in (stream, other):
            client.settimeout(SECONDS)
            assert client.recv(1) == b"\0"
    kagent.run("ssh-add", "-T", f"{path}.pub")


@pytest.mark.native
def test_a_worker_that_dies_in_the_middle(kagent: Agent) -> None:
    """Killed while it signs, as are the next that are asked: FAILURE, for that client only."""
    path = kagent.person.file("key", Path(__file__).with_name("rsa16384"))
    kagent.run("ssh-add", path)
    wait_until(lambda: kagent.signers)
    with kagent.connect() as stream, kagent.connect() as other:
        for _ in range(20):
            stream.sendall(request(path))
            while stream not in ready(stream):
                for worker in filter(busy, kagent.signers):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
            if ask(stream, b"") == FAILURE:
                break  # else the workers were quicker
        assert "died" in explained(stream)
        assert ask(other, request(path))[4] == 14
        assert ask(stream, request(path))[4] == 14


def ready(stream: socket.socket) -> list[socket.socket]:
    return select.select([stream], [], [], 0)[0]


def busy(pid: int) -> bool:
    """Whether a worker has begun to use a processor for more than it takes to wait."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.native
def test_ten_thousand_signatures_leave_nothing_behind(kagent: Agent) -> None:
    path = kagent.person.key("ed25519", *TYPES["ed25519"])
    kagent.run("ssh-add", path)
    frame = request(path)

    def sign(count: int) -> None:
        with kagent.connect() as stream:
            for _ in range(count):
                assert ask(stream, frame)[4] == 14, kagent.logged()

    def in_parallel(each: int) -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            for done in [clients.submit(sign, each) for _ in range(CLIENTS)]:
                done.result()

    def used() -> tuple[int, list[int]]:
        sign(1)  # the worker that comes then takes the places of those that have ended
        time.sleep(0.2)
        pids = (kagent.keeper, kagent.front)
        return (
            len(kagent.children),
            [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids],
        )

    def memory_of(pid: int) -> int:
        [kilobytes] = re.findall(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(kilobytes)

    in_parallel(50)
    time.sleep(1)  # until their bursts are over
    before = used()
    size = [memory_of(pid) for pid in (kagent.keeper, kagent.front)]
    in_parallel(10_000 // CLIENTS)
    wait_until(lambda: used() == before)
    grown = [memory_of(pid) for pid in (kagent.keeper, kagent.front)]
    assert all(now < then + 1024 for then, now in zip(size, grown, strict=True)), (size, grown)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may attach")
def test_the_front_can_do_nothing_with_a_sealed_key(kagent: Agent) -> None:
    """Asked in its own process, by serial; the control is the keeper, which can.

    Nor has it the sealed keys themselves, of which the keeper has three descriptors, and it one.
    """
    path = kagent.person.key("ed25519", *TYPES["ed25519"])
    kagent.run("ssh-add", path)
    [session] = calls_in(kagent.keeper, _keyctl(Operation.GET_KEYRING_ID, -3, 0))
    search = _keyctl(Operation.SEARCH, session, b"keyring", b"kagent:sealed", 0)
    [ring] = calls_in(kagent.keeper, search)
    name = b"kagent-sealing"
    [serial] = calls_in(kagent.keeper, _keyctl(Operation.SEARCH, ring, b"user", name, 0))
    attempts = [
        _keyctl(Operation.READ, serial, 0, 0),
        _keyctl(Operation.DESCRIBE, serial, 0, 0),
        _keyctl(Operation.LINK, serial, -3),
        _keyctl(Operation.SETPERM, serial, 0x3F3F3F3F),
        _keyctl(Operation.REVOKE, serial),
        _keyctl(Operation.INVALIDATE, serial),
        _keyctl(Operation.UNLINK, serial, ring),
        _keyctl(Operation.SEARCH, ring, b"user", name, 0),
    ]
    kagent.run("ssh-add", "-T", f"{path}.pub")
    assert calls_in(kagent.front, *attempts) == [-errno.EACCES] * len(attempts)
    unforeseen = _keyctl(Operation.SET_TIMEOUT, serial, 1)
    assert calls_in(kagent.front, unforeseen) == [-errno.EPERM]
    [lookout] = kagent.lookouts
    assert calls_in(lookout, *attempts) == [-errno.EPERM] * len(attempts)
    assert calls_in(kagent.keeper, *attempts[:2])[0] > 0
    assert [len(_shelves(pid)) for pid in (kagent.keeper, kagent.front, lookout)] == [6, 1, 0]
    assert _shelves(kagent.front) < _shelves(kagent.keeper)
    kagent.run("ssh-add", "-T", f"{path}.pub")


def _shelves(pid: int) -> set[tuple[int, bool]]:
    """The memory files that a process has open: which, and whether it can write to them."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(descriptor).startswith("/memfd:"):
            writes = bool(descriptor.lstat().st_mode & stat.S_IWUSR)
            found.add((descriptor.stat().st_ino, writes))
    return found


def _keyctl(operation: Operation, *arguments: int | bytes) -> Call:
    return ("syscall", KEYCTL, int(operation), *arguments)


def test_who_is_the_same_user_may_not_look_into_its_processes(kagent: Agent) -> None:
    """Nor attach to them; to another process of that user they may."""
    person = kagent.person
    if person.uid == 0:
        pytest.skip("root may look into everything")
    kagent.run("ssh-add", person.key("ed25519", *TYPES["ed25519"]))
    wait_until(lambda: kagent.signers)
    pids = [kagent.keeper, kagent.front, *kagent.signers]
    told = person.run(sys.executable, "-c", ATTACH, *map(str, pids)).stdout
    assert set(told.splitlines()) == {"refused refused"}
    control = 'sleep 60 & "$0" -c "$1" $!; kill $!'
    told = person.run("sh", "-c", control, sys.executable, ATTACH).stdout
    assert told == "opened attached\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may look")
def test_no_private_key_in_any_process(kagent: Agent) -> None:
    """After both loaders and signatures with every type of key."""
    person = kagent.person
    paths = [person.key(name, *TYPES[name]) for name in TYPES]
    for loader in ("ssh-add", "kagent-add"):
        kagent.run(loader, *paths)
        for path in paths:
            kagent.run("ssh-add", "-T", f"{path}.pub")
    has_nothing_of(kagent, *paths)
