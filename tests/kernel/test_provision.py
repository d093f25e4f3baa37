"""Keys that the kernel has fetched: request_key(2), keyutils' request-key, and kagent-provision."""

from __future__ import annotations

import errno
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kagent.private.keyfile import parse
from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import SignRequest, SignResponse, encode
from kagent.prove.memory import Search
from kagent.prove.needles import Needles
from tests.hostile.asking import Client, Pair, sign
from tests.kernel import keys
from tests.support.frames import ask
from tests.support.programs import BIN, Agent, Person, agent, sshd, wait_until

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        not Path("/run/machine").exists() or os.getuid() != 0,
        reason="changes /etc: only in a booted machine",
    ),
]

CONTRIB = Path(__file__).parent.parent.parent / "contrib"
SYSTEM_LOG = Path("/dev/log")
ETC = Path("/etc/kagent")


@dataclass
class Provisioning:
    """The machine's configuration, and what kagent-provision writes to the system's log."""

    person: Person
    socket: socket.socket
    rules: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def rule(self, key: str, source: str, more: str = "", lifetime: str = "10m") -> None:
        """Add a rule for this person."""
        if "users" not in more:
            more += f'\nusers = ["{self.person.name}"]'
        told = f'[[rule]]\nkey = "{key}"\nlifetime = "{lifetime}"\nfrom = {source}\n{more}\n'
        self.rules.append(told)
        (ETC / "provision.toml").write_text("\n".join(self.rules))

    def identity(self, key: str, path: Path, file: Path = ETC / "identities") -> None:
        """Add an identity to the system's configuration, or to another."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(f"{key} {path.with_suffix('.pub').read_text()}")

    def secret(self, name: str, content: bytes) -> Path:
        """A file that only root can read."""
        path = ETC / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

    def command(self, name: str, script: str) -> str:
        """A program that only root can run, as a rule's `from`."""
        path = ETC / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o700)
        return f'{{ command = ["{path}"] }}'

    def logged(self) -> list[str]:
        """All that kagent-provision has logged."""
        while True:
            try:
                line = self.socket.recv(65536).decode()
            except BlockingIOError:
                return self.lines
            if "kagent-provision" in line:
                self.lines.append(line)

    def told(self, beginning: str) -> list[str]:
        """What was logged with that word after the program's name."""
        return [line for line in self.logged() if re.search(rf"\]: (warning: )?{beginning} ", line)]

    def check(self, *options: str, code: int = 0) -> str:
        """What kagent-provision check says."""
        done = subprocess.run(
            [BIN / "kagent-provision", "check", *options], capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def provisioning(person: Person) -> Iterator[Provisioning]:
    """/etc as an administrator sets it up, from what is in contrib."""
    line = (CONTRIB / "request-key.d/kagent.conf").read_text()
    request_key = Path("/etc/request-key.d/kagent.conf")
    request_key.parent.mkdir(exist_ok=True)
    request_key.write_text(line.replace("/usr/bin/kagent-provision", f"{BIN}/kagent-provision"))
    ETC.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setblocking(False)
        log.bind(str(SYSTEM_LOG))
        SYSTEM_LOG.chmod(0o666)
        yield Provisioning(person, log)
        wait_until(lambda: not upcalls())  # of who was killed: the next test would hear of them
    SYSTEM_LOG.unlink()
    request_key.unlink()
    shutil.rmtree(ETC)


def upcalls() -> list[bytes]:
    """What the kernel has started, and waits for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found.append(path.read_bytes())
    return [words for words in found if b"request-key\0" in words or b"kagent-provision\0" in words]


def public(person: Person, path: Path) -> Path:
    return person.file(f"{path.name}.pub", path.with_suffix(".pub"))


def signs(kagent: Agent, path: Path) -> bool:
    return kagent.run("ssh-add", "-T", path, check=False).returncode == 0


def shown(kagent: Agent, comment: str) -> str:
    """The line below a key's in kagentctl show."""
    lines = kagent.run("kagentctl", "show").stdout.splitlines()
    [number] = [number for number, line in enumerate(lines) if f" {comment} (" in line]
    return lines[number + 1].strip()


@pytest.mark.distribution
def test_a_login(provisioning: Provisioning, kagent: Agent, folder: Path) -> None:
    """Listed at once; fetched once, and again when it was removed."""
    person = provisioning.person
    path = keys.rsa(2048)
    secret = provisioning.secret("deploy", path.read_bytes())
    provisioning.rule("kagent:deploy", f'{{ file = "{secret}" }}')
    assert "no identities" in kagent.run("ssh-add", "-l", check=False).stdout
    provisioning.identity("kagent:deploy", path)
    wait_until(lambda: "key-2048-0 (RSA)" in kagent.run("ssh-add", "-l", check=False).stdout)
    assert "fetched as kagent:deploy when it is needed; not fetched yet" in shown(
        kagent, "key-2048-0"
    )
    assert provisioning.logged() == []
    doctor = kagent.run("kagentctl", "doctor", check=False).stdout
    assert re.search("ok +provisioning: key-2048-0, fetched as .*; not fetched yet", doctor), doctor
    with sshd(person, folder / "sshd", path.with_suffix(".pub").read_text()) as server:
        for _ in range(2):
            assert kagent.run(*server.ssh(person), "echo", "hello").stdout == "hello\n"
    [line] = provisioning.told("delivered")
    assert f"kagent:deploy for {person.name} by /usr/bin/python3" in line
    assert "by rule 1, for 600 seconds" in line
    told = shown(kagent, "key-2048-0")
    assert re.search(r"needed; fetched\); \d+s left", told), told
    doctor = kagent.run("kagentctl", "doctor", check=False).stdout
    assert re.search(r"ok +provisioning: .*; fetched, \d+s left", doctor), doctor
    assert "deploy" not in person.run("cat", "/proc/keys").stdout  # nobody else's to see
    kagent.run("ssh-add", "-D")
    assert "not fetched yet" in shown(kagent, "key-2048-0")
    assert signs(kagent, public(person, path))
    assert len(provisioning.told("delivered")) == 2


def test_its_time_is_over(provisioning: Provisioning, kagent: Agent) -> None:
    path = keys.rsa(2048)
    secret = provisioning.secret("deploy", path.read_bytes())
    provisioning.rule("kagent:deploy", f'{{ file = "{secret}" }}', lifetime="6s")
    provisioning.identity("kagent:deploy", path)
    for number in (1, 2):
        assert signs(kagent, public(provisioning.person, path))
        assert len(provisioning.told("delivered")) == number
        wait_until(lambda: "not fetched yet" in shown(kagent, "key-2048-0"))


def test_after_the_front_was_killed(provisioning: Provisioning, kagent: Agent) -> None:
    path = keys.rsa(2048)
    provisioning.rule(
        "kagent:deploy", f'{{ file = "{provisioning.secret("deploy", path.read_bytes())}" }}'
    )
    provisioning.identity("kagent:deploy", path)
    for _ in range(2):
        assert signs(kagent, public(provisioning.person, path))
        os.kill(kagent.front, 9)
    assert len(provisioning.told("delivered")) == 1


MEANWHILE: dict[str, Callable[[Client, Pair], bool]] = {
    "nothing": lambda other, pair: True,  # the control
    "locked": lambda other, pair: other.lock(),
    "loaded with -c": lambda other, pair: other.add(pair, Confirm()),
}


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("what", MEANWHILE)
def test_what_changes_while_it_is_fetched(
    provisioning: Provisioning, kagent: Agent, what: str, stopped: bool
) -> None:
    """Counts, also where the front is stopped until all of it waits: nothing signs afterwards."""
    path = keys.rsa(2048)
    pair = Pair(parse(path.read_bytes())[0], path.read_bytes(), b"")
    secret = provisioning.secret("deploy", path.read_bytes())
    go, asked = ETC / "go", ETC / "asked"
    backend = f"touch {asked}; until [ -e {go} ]; do sleep 0.02; done; cat {secret}"
    provisioning.rule("kagent:deploy", provisioning.command("slow", backend))
    provisioning.identity("kagent:deploy", path)
    with Client(kagent.socket) as client, Client(kagent.socket) as other:
        client.send(sign(pair))
        wait_until(asked.exists)
        if stopped:
            os.kill(kagent.front, signal.SIGSTOP)
            go.touch()
            wait_until(lambda: provisioning.told("delivered"))
            continuing = threading.Timer(0.3, os.kill, (kagent.front, signal.SIGCONT))
            continuing.start()
        assert MEANWHILE[what](other, pair)
        before = bool(select.select([client.stream], [], [], 0)[0])
        go.touch()
        signed = isinstance(client.answer(), SignResponse)
    assert signed if what == "nothing" else before or not signed


def test_a_constraint_counts_for_who_waits_for_a_turn(
    provisioning: Provisioning, kagent: Agent
) -> None:
    """The key that was fetched is still there, but the same was loaded with -c meanwhile."""
    path = keys.rsa(4096)
    pair = Pair(parse(path.read_bytes())[0], path.read_bytes(), b"")
    secret = provisioning.secret("deploy", path.read_bytes())
    provisioning.rule("kagent:deploy", f'{{ file = "{secret}" }}')
    provisioning.identity("kagent:deploy", path)
    with ExitStack() as stack, Client(kagent.socket) as other:
        assert isinstance(other.ask(sign(pair)), SignResponse)  # it is fetched by then
        clients = [stack.enter_context(Client(kagent.socket)) for _ in range(100)]
        for client in clients:
            client.send(sign(pair))
        assert other.add(pair, Confirm())
        streams = [client.stream for client in clients]
        before = select.select(streams, [], [], 0)[0]
        answers = [(client.answer(), client.stream in before) for client in clients]
    signed = [early for answer, early in answers if isinstance(answer, SignResponse)]
    assert len(signed) < len(clients)
    # What was being made when the constraint came is given away.
    assert signed.count(False) <= (os.cpu_count() or 1)


def test_what_the_receiver_may_do(provisioning: Provisioning) -> None:
    """Sign, whoever asks, and nothing else: with keyctl, where the policy names no program."""
    person = provisioning.person
    secret = provisioning.secret("deploy", keys.pkcs8(keys.rsa(2048)))
    provisioning.rule("kagent:deploy", f'{{ file = "{secret}" }}')
    asked = person.run("keyctl", "request2", "asymmetric", "kagent:deploy", "x", "@s")
    serial = asked.stdout.strip()
    told = person.run("keyctl", "rdescribe", serial).stdout
    assert re.fullmatch(rf"asymmetric;{person.uid};\d+;09000000;kagent:deploy\n", told)
    digest = person.file("digest", bytes(32))
    person.run(
        "sh", "-c", f"keyctl pkey_sign {serial} 0 {digest} enc=pkcs1 hash=sha256 > signature"
    )
    for words in (
        ["read", serial],
        ["setperm", serial, "0x3f3f0000"],
        ["timeout", serial, "0"],
        ["link", serial, "@u"],
        ["revoke", serial],
        ["chown", serial, str(person.uid)],
    ):
        assert person.run("keyctl", *words, check=False).returncode != 0, words
    assert re.search(r" (9|10)m 09000000 .*kagent:deploy", person.run("cat", "/proc/keys").stdout)


def test_denials(provisioning: Provisioning, kagent: Agent) -> None:
    """By user and by program; the backend isn't asked, and the policy not again at once."""
    person = provisioning.person
    backend = provisioning.command("backend", f"touch {ETC}/asked; cat {ETC}/secret")
    provisioning.secret("secret", keys.rsa(2048).read_bytes())
    provisioning.rule("kagent:others", backend, 'users = ["nobody"]\ngroups = ["daemon"]')
    provisioning.rule("kagent:git", backend, 'programs = ["/usr/bin/git"]')
    provisioning.identity("kagent:others", keys.rsa(2048))
    provisioning.identity("kagent:git", keys.rsa(1024))
    for path, key in ((keys.rsa(2048), "kagent:others"), (keys.rsa(1024), "kagent:git")):
        for _ in range(3):
            assert not signs(kagent, public(person, path))
        line = provisioning.told("refused")[-1]
        assert f"{key} for {person.name} by /usr/bin/python3" in line
        assert "no rule in /etc/kagent/provision.toml permits it" in line
        assert f"{key}: the machine's policy refuses the key" in kagent.logged()
        assert "refused: the machine's policy refuses" in shown(kagent, parse_comment(path))
    assert len(provisioning.told("refused")) == 2
    assert not (ETC / "asked").exists()
    told = provisioning.check("--user", person.name, code=1)
    assert f"refused  kagent:git: no rule permits it to {person.name} by /usr/bin/python3" in told
    told = provisioning.check("--user", person.name, "--program", "/usr/bin/git")
    assert f"ok       kagent:git: rule 2 permits it to {person.name} by /usr/bin/git" in told
    assert "refused  kagent:others: " in told


FORGES = """
import os, sys, threading
from kagent.keyctl import SESSION_KEYRING, KernelKeyError, syscalls
from kagent.keyctl.proc import listed

def forge():
    # As if another process had asked for what is under construction.
    while True:
        for line in listed():
            if line.under_construction:
                told = f"key:{line.key.serial:x} pid:{os.getppid()} ci:0"
                forged = f"x\\n00000001 I--Q---     1 perm 1f3f0000 0 0 .request_ {told}"
                serial = syscalls.add_key("user", forged, b"x", SESSION_KEYRING)
                syscalls.setperm(serial, 0x3f3f3f3f)
                return

threading.Thread(target=forge, daemon=True).start()
try:
    print(syscalls.request_key("asymmetric", "kagent:dash", "x", SESSION_KEYRING))
except KernelKeyError as error:
    print(error.errno)
"""


def test_a_line_of_proc_keys_that_is_forged(provisioning: Provisioning) -> None:
    """By a description with a line's end in it: then no program is believed to have asked."""
    person = provisioning.person
    secret = provisioning.secret("deploy", keys.rsa(1024).read_bytes())
    shell = os.path.realpath("/bin/sh")
    provisioning.rule("kagent:dash", f'{{ file = "{secret}" }}', f'programs = ["{shell}"]')
    person.file("forges.py", FORGES)
    told = person.run("sh", "-c", f"keyctl session - {sys.executable} forges.py; true").stdout
    assert told == "129\n", provisioning.logged()  # EKEYREJECTED
    assert "by an unknown program" in provisioning.told("refused")[-1]


HAMMERS = """
import os, sys
from kagent.keyctl import SESSION_KEYRING, KernelKeyError, syscalls

for number in range(int(sys.argv[1])):
    if os.fork() == 0:
        syscalls.join_session_keyring()  # where no refusal is kept
        try:
            syscalls.request_key("asymmetric", f"kagent:{number}", "x", SESSION_KEYRING)
            answer = 0
        except KernelKeyError as error:
            answer = error.errno
        os.write(1, f"{answer}\\n".encode())
        os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def hammers(person: Person, times: int) -> list[str]:
    """The answers to as many requests at once, each for a key of its own: errno, or 0."""
    told = person.run(sys.executable, "-c", HAMMERS, str(times)).stdout.split()
    assert len(told) == times
    return told


REFUSED, BUSY = str(errno.EKEYREJECTED), str(errno.EBUSY)
OVER = str(errno.ENOKEY)  # where a machine is so slow that a refusal's seconds are over at once


@pytest.fixture
def mallory(person: Person) -> Iterator[Person]:
    """A third user, of the same eighth of all users as `person`."""
    uid = person.uid + 8
    passwd = Path("/etc/passwd")
    before = passwd.read_text()
    assert f":{uid}:" not in before
    passwd.write_text(f"{before}mallory:x:{uid}:{uid}::/:/bin/sh\n")
    yield Person("mallory", uid, uid, Path("/"))
    passwd.write_text(before)


def test_who_is_permitted_nothing_costs_little(provisioning: Provisioning) -> None:
    """Python is started for four of all that ask at once, and then not again for ten seconds."""
    person = provisioning.person
    provisioning.rule("kagent:0", '{ file = "/nowhere" }', 'users = ["nobody"]')
    started = time.monotonic()
    assert set(hammers(person, 24)) <= {REFUSED, BUSY, OVER}
    periods = 1 + int(time.monotonic() - started) // 10
    assert 1 <= len(provisioning.told("refused")) <= 4 * periods
    wait_until(lambda: hammers(person, 1) == [REFUSED])
    folder = Path("/run/kagent-provision")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    # Without the door it is started each time.  (For few: together they take a small machine long.)
    python = f"exec {sys.executable} -I -m kagent.cli.provision create $1 </dev/null 2>&0"
    program = ETC / "no-door"
    program.write_text(f"#!/bin/sh\n{python}\n")
    program.chmod(0o700)
    line = f"create asymmetric kagent:* * {program} %k\n"
    Path("/etc/request-key.d/kagent.conf").write_text(line)
    before = len(provisioning.told("refused"))
    assert hammers(person, 6) == [REFUSED] * 6
    assert len(provisioning.told("refused")) == before + 6


def test_others_are_served_meanwhile(
    provisioning: Provisioning, kagent: Agent, mallory: Person
) -> None:
    person = provisioning.person
    path = keys.rsa(2048)
    secret = provisioning.secret("deploy", path.read_bytes())
    provisioning.rule("kagent:deploy", f'{{ file = "{secret}" }}')
    provisioning.identity("kagent:deploy", path)
    again = HAMMERS.replace("\nfor", "\nos.setsid()\nwhile os.fork():\n    os.wait()\nfor")
    with mallory.start(*(sys.executable, "-c", again, "20"), stdout=subprocess.PIPE) as hammer:
        assert hammer.stdout
        try:
            answers = [hammer.stdout.readline().strip() for _ in range(40)]
            assert BUSY in answers
            assert set(answers) <= {REFUSED, BUSY, OVER}
            started = time.monotonic()
            assert signs(kagent, public(person, path)), provisioning.logged()
            assert time.monotonic() - started < 30
            assert hammer.poll() is None
        finally:
            os.killpg(hammer.pid, signal.SIGKILL)


def test_a_slow_backend_holds_up_its_user_alone(
    provisioning: Provisioning, kagent: Agent, mallory: Person
) -> None:
    """Four keys at once for one user; the others are told at once, and other users have theirs."""
    person = provisioning.person
    path = keys.rsa(1024)
    secret = provisioning.secret("secret", path.read_bytes())
    backend = provisioning.command("backend", f"sleep 12; touch {ETC}/late; cat {secret}")
    for number in range(6):
        provisioning.rule(f"kagent:{number}", backend, 'users = ["mallory"]\ntimeout = "30s"')
    provisioning.rule("kagent:deploy", f'{{ file = "{secret}" }}')
    provisioning.identity("kagent:deploy", path)
    with mallory.start(sys.executable, "-c", HAMMERS, "6", stdout=subprocess.PIPE) as asking:
        assert asking.stdout
        assert [asking.stdout.readline().strip() for _ in range(2)] == [BUSY, BUSY]
        assert signs(kagent, public(person, path)), provisioning.logged()
        assert not (ETC / "late").exists()
        assert asking.stdout.read().split() == ["0"] * 4
    assert hammers(mallory, 1) == ["0"]


def test_a_user_without_a_name(provisioning: Provisioning) -> None:
    """As a user namespace has thousands: refused, and nothing is left of it."""
    nameless = Person("nobody-at-all", 123456, 123456, Path("/"))
    provisioning.rule("kagent:0", '{ file = "/nowhere" }', 'users = ["nobody"]')
    assert hammers(nameless, 6) == [REFUSED] * 6
    assert provisioning.logged() == []
    folder = Path("/run/kagent-provision")
    assert not (folder / str(nameless.uid)).exists()
    wait_until(lambda: REFUSED in hammers(provisioning.person, 1))
    assert len(provisioning.told("refused")) == 1
    assert (folder / str(provisioning.person.uid)).exists()


def test_a_refusal_is_kept_by_the_kernel(provisioning: Provisioning) -> None:
    """Where it is kept, who asks again is answered without any process."""
    person = provisioning.person
    provisioning.rule("kagent:0", '{ file = "/nowhere" }', 'users = ["nobody"]')
    ask = "keyctl request2 asymmetric kagent:0 x @s 2>&1"
    for script, lines in ((f"{ask}; {ask}", 1), (f"{ask}; keyctl clear @s; {ask}", 2)):
        before = 0

        def refused_twice(script: str = script) -> bool:
            # Asked again as long as the user's turns rest, or the kernel gives up too soon.
            nonlocal before
            before = len(provisioning.told("refused kagent:0"))
            words = ("keyctl", "session", "-", "sh", "-c", script)
            return person.run(*words, check=False).stdout.count("rejected") == 2

        wait_until(refused_twice)
        assert len(provisioning.told("refused kagent:0")) == before + lines


def parse_comment(path: Path) -> str:
    return path.with_suffix(".pub").read_text().split()[2]


def test_backends_that_fail(provisioning: Provisioning, kagent: Agent, folder: Path) -> None:
    """Each is refused with its reason, to the administrator's log and in general to the user."""
    person = provisioning.person
    ed25519 = folder / "ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ed25519], check=True)
    provisioning.secret("another", keys.rsa(1536, 1).read_bytes())
    provisioning.secret("ed25519", ed25519.read_bytes())
    open_to_all = provisioning.secret("open", keys.rsa(1024).read_bytes())
    open_to_all.chmod(0o644)
    cases = {
        "fails": ("echo secret >&2; exit 3", "exit code 3", "can't be had now"),
        "hangs": ("sleep 1000 & sleep 1000", "longer than 1 seconds", "no answer in time"),
        "rubbish": ("head -c 3000 /dev/urandom", "no private key", "not the key"),
        "endless": ("yes", "more than 65536 bytes", "not the key"),
        "another": (f"cat {ETC}/another", "is not the key that /etc/kagent/identities has", "not"),
        "ed25519": (f"cat {ETC}/ed25519", "can't sign with this type of key", "of no use"),
        "open": ("", "must be a file of mode 0600", "can't be had now"),
    }
    for number, (name, (script, _, _)) in enumerate(cases.items()):
        path = keys.rsa(keys.SIZES[number % 5], number // 5)
        source = (
            provisioning.command(name + ".sh", script) if script else f'{{ file = "{ETC}/open" }}'
        )
        provisioning.rule(f"kagent:{name}", source, 'timeout = "1s"')
        provisioning.identity(f"kagent:{name}", path)
        assert not signs(kagent, public(person, path))
        assert cases[name][2] in kagent.logged().splitlines()[-1], name
        assert cases[name][1] in provisioning.told("refused")[-1], name
    assert "secret" not in "".join(provisioning.logged())
    told = provisioning.check(code=1)
    for name, (_, reason, _) in cases.items():
        assert re.search(rf"failure  rule \d, kagent:{name}, .*{re.escape(reason)}", told), told
    assert subprocess.run(["pgrep", "-x", "sleep"], capture_output=True).stdout == b""


def test_another_key_than_the_users(provisioning: Provisioning, kagent: Agent) -> None:
    """That the key is the one that the user has configured, kagent itself finds out."""
    person = provisioning.person
    secret = provisioning.secret("key", keys.rsa(2048, 1).read_bytes())
    provisioning.rule("kagent:deploy", f'{{ file = "{secret}" }}')
    provisioning.identity(
        "kagent:deploy", keys.rsa(2048, 0), person.home / ".config/kagent/identities"
    )
    for _ in range(2):
        assert not signs(kagent, public(person, keys.rsa(2048, 0)))
        assert "a key was fetched, but not the configured one" in kagent.logged().splitlines()[-1]
    assert len(provisioning.told("delivered")) == 1
    assert "can't be told: /etc/kagent/identities has no kagent:deploy" in provisioning.check()


def test_forms(provisioning: Provisioning, folder: Path) -> None:
    """All that keys are kept in, encrypted ones with a passphrase from elsewhere."""
    path = keys.rsa(1024)
    passphrase = provisioning.secret("passphrase", b"correct horse\n")
    der = provisioning.secret("key.der", keys.pkcs8(path))
    forms = {"openssh": path, "der": der}
    for name, command in {
        "pem": ["openssl", "pkey", "-inform", "DER", "-in", der],
        "pkcs1": ["openssl", "rsa", "-traditional", "-inform", "DER", "-in", der],
        "encrypted": [
            "openssl",
            "pkcs8",
            "-topk8",
            "-inform",
            "DER",
            "-in",
            der,
            "-outform",
            "DER",
            "-passout",
            "pass:correct horse",
        ],
    }.items():
        made = subprocess.run(command, capture_output=True, check=True).stdout
        forms[name] = provisioning.secret(name, made)
    forms["openssh-encrypted"] = provisioning.secret("key", path.read_bytes())
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "correct horse", "-f", ETC / "key"], check=True
    )
    for name, file in forms.items():
        source = provisioning.command(f"{name}.sh", f"cat {file}")
        more = f'passphrase = {{ file = "{passphrase}" }}' if "encrypted" in name else ""
        provisioning.rule(f"kagent:{name}", source, more)
        provisioning.identity(f"kagent:{name}", path)
    told = provisioning.check()
    assert told.count(", as in /etc/kagent/identities\n") == len(forms) == 6, told
    provisioning.rule("kagent:bare", f'{{ command = ["/bin/cat", "{ETC}/encrypted"] }}')
    assert "the rule needs a passphrase" in provisioning.check(code=1)


def test_a_hundred_signatures_at_once(provisioning: Provisioning, kagent: Agent) -> None:
    path = keys.rsa(2048)
    provisioning.secret("secret", path.read_bytes())
    backend = provisioning.command("backend", f"echo >> {ETC}/asked; sleep 1; cat {ETC}/secret")
    provisioning.rule("kagent:deploy", backend)
    provisioning.identity("kagent:deploy", path)
    request = encode(SignRequest(parse(path.read_bytes())[0].public_blob, b"data", 2))

    def sign(_: int) -> int:
        with kagent.connect() as stream:
            return ask(stream, request)[4]

    with ThreadPoolExecutor(100) as clients:
        assert set(clients.map(sign, range(100))) == {14}, kagent.logged()
    assert (ETC / "asked").read_text() == "\n"


def test_nothing_of_the_user_has_the_key(provisioning: Provisioning, kagent: Agent) -> None:
    """Neither while it is fetched, nor after that."""
    person = provisioning.person
    path = keys.rsa(2048)
    provisioning.secret("secret", path.read_bytes())
    backend = provisioning.command("backend", f"cat {ETC}/secret; touch {ETC}/given; sleep 2")
    provisioning.rule("kagent:deploy", backend)
    provisioning.identity("kagent:deploy", path)
    search = Search(Needles({"it": parse(path.read_bytes())[0].key}))

    def searched() -> int:
        found = processes(person)
        for pid in found:
            try:
                assert not search.look(pid).found, pid
            except (FileNotFoundError, ProcessLookupError):
                pass
        return len(found)

    with person.start(
        "ssh-add", "-T", public(person, path), env={"SSH_AUTH_SOCK": str(kagent.socket)}
    ) as client:
        wait_until((ETC / "given").exists)
        assert searched() >= 4  # ssh-add, keeper, front, and the worker in request_key(2)
        assert client.wait(60) == 0
    assert searched() >= 2


def processes(person: Person) -> list[int]:
    """All processes of that user."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if re.search(rf"^Uid:\t{person.uid}\t", status, re.MULTILINE):
            found.append(int(folder.name))
    return found


def test_the_agent_ends_while_a_backend_hangs(provisioning: Provisioning, person: Person) -> None:
    path = keys.rsa(2048)
    backend = provisioning.command("backend", f"touch {ETC}/asked; sleep 15; touch {ETC}/late")
    provisioning.rule("kagent:deploy", backend, 'timeout = "20s"')
    provisioning.identity("kagent:deploy", path)
    with agent(person) as kagent:
        client = person.start(
            "ssh-add", "-T", public(person, path), env={"SSH_AUTH_SOCK": str(kagent.socket)}
        )
        wait_until((ETC / "asked").exists)
    assert client.wait(60) != 0
    assert not (ETC / "late").exists()
    wait_until((ETC / "late").exists)  # and with it the kernel's helper


@contextmanager
def without(path: Path) -> Iterator[None]:
    """That file is away until the block ends."""
    aside = path.with_name("aside")
    path.rename(aside)
    yield
    aside.rename(path)


def test_nothing_is_set_up(provisioning: Provisioning, kagent: Agent) -> None:
    """Without a policy, or without request-key, it is no, with a reason."""
    person = provisioning.person
    provisioning.identity("kagent:deploy", keys.rsa(2048))
    assert not signs(kagent, public(person, keys.rsa(2048)))
    assert "there is no /etc/kagent/provision.toml" in provisioning.logged()[-1]
    with without(Path("/etc/request-key.d/kagent.conf")):
        provisioning.identity("kagent:other", keys.rsa(1024))
        assert not signs(kagent, public(person, keys.rsa(1024)))
        assert "nothing on this machine provides the key" in kagent.logged().splitlines()[-1]
        told = kagent.run("kagentctl", "doctor", check=False).stdout
        assert re.search("provisioning: the kernel isn't told to ask for kagent:deploy", told), told
