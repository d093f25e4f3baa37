"""What kagent's processes can't do, whoever has taken them over."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kagent.confine import profiles
from kagent.custody.identity import description_of
from kagent.custody.rings import find_sealing_key, make_sealing_key, sealing_key
from kagent.custody.shelf import OwnShelf
from kagent.jobs.jobs import Signed, SignJob, unpack_answer
from kagent.jobs.terms import BURST
from kagent.keyctl import Keyring, session_keyring, syscalls
from kagent.private import composite, sealed
from kagent.private.keyfile.pem import from_library
from kagent.private.library import LibraryKey, der
from kagent.private.verify import verify
from kagent.protocol.messages import SignRequest, encode
from kagent.protocol.publickey import PublicKey
from kagent.workers import sign
from tests.support.frames import A_KEY, FAILURE, LISTING, NOTHING, ask
from tests.support.injection import Call, calls_in, python_in
from tests.support.programs import (
    SECONDS,
    Agent,
    Person,
    background,
    children_of,
    variables,
    wait_until,
)

CHECKOUT = Path(__file__).parent.parent.parent
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may get into these processes")

# A command line of kagent's on a machine without libseccomp.
WITHOUT_LIBRARY = """
import sys
from kagent.confine import seccomp
from kagent.cli.{module} import main
seccomp._LIBRARY = "libnothing.so.2"
sys.argv[0] = {module!r}
sys.exit(main())
"""

HANG_UP = """
import gc
[found] = [one for one in gc.get_objects() if type(one).__name__ == "{kind}"]
found.{channel}.shutdown(2)
"""

# Locks what a sign worker, then what a load worker locks, each in a fork as they do.  Not as root,
# whom no limit holds; it becomes another user late, who may not enter the checkout's folder.
LOCKED = """
import os, re, resource
from pathlib import Path
from kagent.confine.memory import lock_memory, memory_areas
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for areas in (memory_areas(python_objects=False), None):
    if os.fork() == 0:
        complete = lock_memory(areas)
        new = bytearray(300_000)
        status = Path("/proc/self/status").read_text()
        kilobytes = int(re.search(r"VmLck:\\s+(\\d+)", status)[1])
        maps = Path("/proc/self/smaps").read_text()
        flags = re.findall(r"\\[(heap|stack)\\].*?VmFlags: ([^\\n]*)", maps, re.DOTALL)
        locked = {name for name, given in flags if "lo" in given.split()}
        print(complete, kilobytes, *sorted(locked), flush=True)
        os._exit(0)
    os.wait()
"""

# What is given back comes again, as it is in the files: OpenSSL hashes by code and constants.
GIVEN_BACK = """
import hashlib
from pathlib import Path
from kagent.confine.memory import code_areas, give_back
def clean():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "_Clean:" in line)
def digests():
    return [hashlib.new(name, b"abc").hexdigest() for name in ("sha256", "sha512", "blake2s")]
areas, before, told = code_areas(), clean(), digests()
give_back(areas)
print(clean() < before / 2, digests() == told)
"""


def attempts(person: Person, profile: str) -> dict[str, str]:
    """What becomes of an attacker's attempts under a profile."""
    program = (sys.executable, "-m", "tests.host.attempts", profile)
    told: dict[str, str] = json.loads(person.run(*program, PYTHONPATH=str(CHECKOUT)).stdout)
    return told


@pytest.mark.parametrize(
    ("profile", "outcome", "done"),
    [
        ("nothing", "done", set()),  # the control
        ("front", "EPERM", set()),
        ("load_worker", "EPERM", {"stat"}),
        ("learn_worker", "EPERM", set()),
        ("lookout", "EPERM", {"open", "stat"}),
        ("sign_worker", "SIGSYS", set()),
    ],
)
def test_what_is_refused(person: Person, profile: str, outcome: str, done: set[str]) -> None:
    told = attempts(person, profile)
    assert {told.pop(name) for name in done} <= {"done"}
    assert {"create", "exec", "fork", "connect", "session to parent"} < told.keys()
    assert set(told.values()) == {outcome}, told


KEYS = {
    "ssh-ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa-sha2-nistp256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-sha2-nistp384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-sha2-nistp521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa-sha2-512": lambda: rsa.generate_private_key(65537, 2048),
    "ssh-mldsa44-ed25519": lambda: composite.PrivateKey.from_seeds(os.urandom(64)),
}


@pytest.mark.usefixtures("person")
@pytest.mark.parametrize("algorithm", KEYS)
def test_a_sign_worker_can_sign(algorithm: str) -> None:
    key: LibraryKey = KEYS[algorithm]()
    ring = Keyring.create("test", session_keyring())
    make_sealing_key(ring)
    shelf, description = OwnShelf(), description_of(b"the key's blob")
    shelf.put(description, sealed.seal(sealing_key(ring), description, der(key)))
    confinement = profiles.sign_worker(ring.serial, find_sealing_key(ring).serial)
    sign.prepare()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            confinement.install()
            sign.Worker(theirs, sign.Safe(ring, shelf.reader), BURST).work()
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        ours.send(SignJob(description, algorithm, b"data").pack())
        answer = unpack_answer(ours.recv(4096))
    assert os.waitpid(child, 0)[1] == 0
    assert isinstance(answer, Signed)
    public = PublicKey.parse(from_library(key).public_blob)
    assert verify(public, answer.signature, b"data") == algorithm


def load_worker_of(keeper: int) -> int:
    """A confined one, which waits for its key."""

    def is_load_worker(pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return False
        return "kagent-load" in status and "Seccomp:\t2" in status

    wait_until(lambda: any(map(is_load_worker, children_of(keeper))))
    [worker] = filter(is_load_worker, children_of(keeper))
    return worker


@pytest.fixture
def load_worker(kagent: Agent) -> Iterator[int]:
    """A load worker that waits for the rest of a key."""
    with kagent.connect() as stream:
        stream.sendall(A_KEY[:-3])
        yield load_worker_of(kagent.keeper)


CALLS: tuple[Call, ...] = (
    ("open", b"/etc/passwd", os.O_RDONLY),
    ("execl", b"/bin/true", b"true", 0),
    ("fork",),
    ("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0),
    ("connect", 2, b"\1\0/", 3),
    ("prctl", 4, 1),  # PR_SET_DUMPABLE
    ("syscall", syscalls._KEYCTL, 18),  # KEYCTL_SESSION_TO_PARENT
)


@pytest.fixture
def front(kagent: Agent) -> int:
    """A front that serves already."""
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == NOTHING
    return kagent.front


@as_root
def test_a_front_that_is_taken_over(kagent: Agent, front: int) -> None:
    refused = calls_in(front, *CALLS)
    assert refused == [-errno.EPERM] * len(CALLS)
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == NOTHING


@as_root
def test_a_load_worker_that_is_taken_over(load_worker: int) -> None:
    refused = calls_in(load_worker, *CALLS)
    assert refused == [-errno.EPERM] * len(CALLS)


@as_root
def test_a_process_does_what_it_is_told(kagent: Agent) -> None:
    """The control: what does no harm, in the keeper, which has no filter."""
    opened, connected, pid = calls_in(kagent.keeper, CALLS[0], CALLS[3], ("getpid",))
    assert 2 < opened < connected
    assert pid == kagent.keeper


@as_root
def test_a_front_that_fails_says_where(kagent: Agent, front: int) -> None:
    """With a traceback, though it can read no file by then."""
    python_in(front, "import kagent.front.connection as c; c.Connection.serve = None")
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == b""
    wait_until(lambda: "the front has ended" in kagent.logged())
    assert "Traceback" in kagent.logged()
    assert "TypeError" in kagent.logged()
    assert "in serve" in kagent.logged()
    with kagent.connect() as stream:
        assert ask(stream, LISTING) == NOTHING
    assert kagent.front != front


@as_root
@pytest.mark.parametrize(
    ("kind", "channel"),
    [
        ("Workers", "_keeper._socket"),
        ("SignWorkers", "_news"),
        ("Workers", "_lookout._socket"),
    ],
)
def test_a_front_that_hangs_up_is_ended(kagent: Agent, kind: str, channel: str) -> None:
    """Alive, it would keep the keeper busy: with that, and with workers that end at once."""
    person = kagent.person
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    kagent.run("ssh-add", "-q", "key")
    front = kagent.front
    with suppress(ProcessLookupError):  # it is ended at once
        python_in(front, HANG_UP.format(kind=kind, channel=channel))

    def ended() -> bool:
        kagent.run("ssh-add", "-T", "key.pub", check=False)  # as long as it has workers, it signs
        return kagent.front != front

    wait_until(ended)
    kagent.run("ssh-add", "-T", "key.pub")


@as_root
def test_the_system_log_is_reached(person: Person, folder: Path) -> None:
    """By front and load worker, which can't connect to it any more."""
    path, place = person.home / "socket", folder / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system_log:
        system_log.bind(str(place))
        system_log.settimeout(SECONDS)

        def expect(text: str) -> None:
            while text not in system_log.recv(4096).decode():
                pass

        # This machine may have no such log, or one of its own: this is in a /dev of its own.
        devices = f"mount -t tmpfs none /dev; mknod /dev/null c 1 3; ln -s {place} /dev/log"
        start = f"set -e; {devices}; exec kagent -s -a {path}"
        with background(person, "unshare", "-m", "sh", "-c", start) as out:
            keeper = int(variables(out)["SSH_AGENT_PID"])
            with socket.socket(socket.AF_UNIX) as stream:
                stream.connect(str(path))
                assert ask(stream, encode(SignRequest(b"", b"", 0))) == FAILURE
                expect("no such key")
                stream.sendall(A_KEY[:-3])
                worker = load_worker_of(keeper)
                python_in(worker, "from kagent import log; log.error('from the worker')")
                expect("from the worker")


@pytest.mark.parametrize("module", ["agent", "ctl.main"])
def test_without_libseccomp(person: Person, module: str) -> None:
    """Nothing is started, and who asks is told what to install."""
    words = {"agent": ["-s"], "ctl.main": ["doctor"]}[module]
    program = WITHOUT_LIBRARY.format(module=module)
    told = person.run(sys.executable, "-c", program, *words, check=False)
    assert told.returncode == 1
    assert "libnothing.so.2 is missing" in told.stdout + told.stderr
    assert "apt-get install libseccomp2" in told.stdout + told.stderr
    assert not (person.home / ".ssh").exists()


def test_locked_memory() -> None:
    """As far as an ordinary user's limit goes, and with room for what comes."""
    limited = ["prlimit", f"--memlock={8 << 20}:{8 << 20}", sys.executable, "-c", LOCKED]
    told = subprocess.run(limited, capture_output=True, text=True)
    sign, load = (line.split() for line in told.stdout.splitlines())
    assert sign[0] == "True"
    assert sign[2:] == load[2:] == ["heap", "stack"]
    assert int(sign[1]) < int(load[1]) < 8 << 10


def test_an_ordinary_user_has_their_own_files_read(tmp_path: Path) -> None:
    """By a worker that is confined, and has to see whose they are."""
    path = tmp_path / "own"
    path.write_text("content")
    code = f"""
import os
import re
from kagent.confine import profiles
from kagent.files import read_own
reading = os.open({str(path)!r}, os.O_RDONLY)
os.chown({str(path)!r}, 65534, 65534)
confinement = profiles.offer_worker(0)
os.setgid(65534)
os.setuid(65534)
confinement.install()
print(read_own(f"/proc/self/fd/{{reading}}"))
"""
    if os.getuid():
        code = re.sub(r"^os\.(chown|setgid|setuid).*\n", "", code, flags=re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "content\n", done.stderr


def test_code_that_is_given_back() -> None:
    words = [sys.executable, "-c", GIVEN_BACK]
    assert subprocess.run(words, capture_output=True, text=True).stdout == "True True\n"
