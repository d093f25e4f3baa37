"""kagentctl prove: finds a key wherever it is, and says so when it can't tell."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent.keyctl import join_anonymous_session, syscalls
from kagent.private.keyfile import parse
from kagent.private.library import der, library_key
from kagent.protocol.privatekey import NamedPrivateKey
from kagent.prove.control import Control
from kagent.prove.examination import Verdict, examine
from kagent.prove.memory import Search
from kagent.prove.needles import Needles
from kagent.prove.processes import Process, Still, below, holding
from tests.support.manual import block
from tests.support.programs import PATH, SECONDS, Agent, Person, agent, wait_until
from tests.support.proving import has_nothing_of, prove

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may look")

TYPES = {
    "rsa": ("-t", "rsa", "-b", "2048"),
    "nistp521": ("-t", "ecdsa", "-b", "521"),
    "ed25519": ("-t", "ed25519"),
}

# Has a key as OpenSSL has it, and nothing else of it.
HOLDER = """\
import sys
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
held = load_ssh_private_key(open(sys.argv[1], "rb").read(), None)
print("ready", flush=True)
sys.stdin.read()
"""

# Carries a secret from one place to another and wipes the first, over and over.
MOVER = """\
import ctypes, sys
size = 8 << 20
memory = (ctypes.c_char * size)()
secret = bytes.fromhex(sys.stdin.readline())
places = [ctypes.byref(memory, 64), ctypes.byref(memory, size - 64)]
place = ctypes.create_string_buffer(secret, len(secret))
ctypes.memmove(places[0], place, len(secret))
ctypes.memset(place, 0, len(secret))
del secret
print("ready", flush=True)
while True:
    for here, there in (places, places[::-1]):
        ctypes.memmove(there, here, 32)
        ctypes.memset(here, 0, 32)
"""

IDLE = "print('ready', flush=True); input()"

# Two pages of a file of one.
BEYOND = """\
import mmap, sys
with open(sys.argv[1], "w+b") as file:
    file.truncate(2 * mmap.PAGESIZE)
    mapped = mmap.mmap(file.fileno(), 0)
    file.truncate(mmap.PAGESIZE)
    print("ready", flush=True)
    sys.stdin.read()
"""

# Another's socket that leads to an agent's.
FORWARDER = """\
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    agent = socket.socket(socket.AF_UNIX)
    agent.connect(sys.argv[2])
    while request := client.recv(65536):
        agent.sendall(request)
        client.sendall(agent.recv(65536))
"""


@contextmanager
def running(code: str, *words: str | Path, send: str = "") -> Iterator[int]:
    """A Python at work on that, as soon as it says that it's ready; its pid."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(send)
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def loaded(kagent: Agent) -> list[Path]:
    """A key of each type, which the agent has and has signed with."""
    paths = [kagent.person.key(name, *options) for name, options in TYPES.items()]
    kagent.run("ssh-add", *paths)
    for path in paths:
        kagent.run("ssh-add", "-T", f"{path}.pub")
    return paths


def test_kagent_has_nothing_and_goes_on(kagent: Agent) -> None:
    paths = loaded(kagent)
    front = kagent.front
    wait_until(lambda: kagent.signers)
    has_nothing_of(kagent, *paths)
    assert kagent.front == front
    for path in paths:
        kagent.run("ssh-add", "-T", f"{path}.pub")
    assert "ended by signal" not in kagent.logged()


def test_the_example_of_the_manual(kagent: Agent) -> None:
    """With a sudo that root doesn't need."""
    person = kagent.person
    person.run("mkdir", "-m", "700", ".ssh", "bin")
    kagent.run("ssh-add", "-q", person.key(".ssh/id_ed25519"))
    person.file("bin/sudo", '#!/bin/sh\nshift\nexec "$@"\n', 0o755)
    done = subprocess.run(
        ["sh", "-euc", block("kagentctl.1", "sudo --preserve-env")],
        env={
            "PATH": f"{person.home}/bin:{PATH}",
            "HOME": str(person.home),
            "SSH_AUTH_SOCK": str(kagent.socket),
        },
        capture_output=True,
        text=True,
        timeout=5 * SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing of the key is in the agent's memory" in done.stdout


def test_what_it_says(kagent: Agent) -> None:
    paths = loaded(kagent)
    done = prove(*paths, SSH_AUTH_SOCK=str(kagent.socket))
    assert (done.returncode, done.stderr) == (0, "")
    *lines, verdict = done.stdout.splitlines()
    assert verdict == "nothing of the 3 keys is in the agent's memory"
    assert lines[0].startswith("key      2048 SHA256:")
    size = r" +\d+\.\d MiB  "
    for pid, name in ((kagent.keeper, "keeper"), (kagent.front, "front")):
        assert any(re.match(rf"process +{pid} kagent-{name} {size}nothing$", one) for one in lines)
    assert re.match(
        rf"control +\d+ kagentctl {size}before it loaded the key: nothing; then: seed of "
        r"\S+ed25519 \(.*big-endian.*\); scalar of \S+nistp521 \(.*limbs.*\); "
        r"d, p, q, dp, dq, qinv of \S+rsa \(big-endian, digits, limbs\)$",
        lines[-1],
    )


@pytest.mark.parametrize("name", TYPES)
def test_a_process_that_has_the_key(person: Person, name: str) -> None:
    path = person.key(name, *TYPES[name])
    with running(HOLDER, path) as pid:
        done = prove("--json", path, "--pid", str(pid))
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert told["verdict"] == "found"
        [looked] = told["agent"]
        assert (looked["pid"], looked["ended"]) == (pid, False)
        assert {one["key"] for one in looked["found"]} == {str(path)}
        # Another key isn't in it.
        other = person.key("other", *TYPES[name])
        assert prove(other, "--pid", str(pid)).returncode == 0
    done = prove(path, "--pid", str(pid))
    assert done.returncode == 2
    assert "not proved: the agent has no process" in done.stdout


def test_a_child_is_a_part_of_the_agent(person: Person) -> None:
    path = person.key("ed25519", "-t", "ed25519")
    command = f"{sys.executable} -c '{HOLDER}' {path}; :"
    with subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        done = prove(path, "--pid", str(process.pid))
        process.communicate("")
    assert done.returncode == 1
    *_, shell, child, _, verdict = done.stdout.splitlines()
    assert re.match(r"process +\d+ sh .* MiB  nothing$", shell)
    assert f"MiB  seed of {path} (" in child
    assert verdict == "FOUND: something of the key is in the agent's memory"


def test_an_agent_of_another_user(folder: Path) -> None:
    """As root proves it for an ordinary user."""
    user = Person.named("nobody", folder / "theirs")
    login = join_anonymous_session()
    syscalls.chown(login.serial, user.uid, user.gid)
    with agent(user) as theirs:
        has_nothing_of(theirs, *loaded(theirs))


def test_stock_ssh_agent_hides_it(person: Person) -> None:
    """It has the key encrypted: what the manual says this search can't find."""
    with agent(person, "ssh-agent") as stock:
        path = person.key("ed25519", "-t", "ed25519")
        stock.run("ssh-add", path)
        done = prove(path, SSH_AUTH_SOCK=str(stock.socket))
    assert done.returncode == 0
    assert "ssh-agent " in done.stdout


def test_a_key_that_the_agent_has_not(kagent: Agent) -> None:
    path = kagent.person.key("ed25519", "-t", "ed25519")
    done = prove(path, SSH_AUTH_SOCK=str(kagent.socket))
    assert done.returncode == 0
    assert "; the agent doesn't list it now" in done.stdout


def test_a_passphrase_is_asked_for(kagent: Agent) -> None:
    path = kagent.person.key("ed25519", "-t", "ed25519", passphrase="secret")
    askpass = kagent.person.file("askpass", "#!/bin/sh\necho secret\n", 0o700)
    asking = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    known = {"SSH_AUTH_SOCK": str(kagent.socket)}
    assert prove(path, **known, **asking).returncode == 0
    askpass.write_text("#!/bin/sh\nexit 1\n")
    done = prove(path, **known, **asking)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is encrypted, and no passphrase was given" in done.stderr


def test_what_can_not_be_proved(person: Person, kagent: Agent, folder: Path) -> None:
    path = person.key("ed25519", "-t", "ed25519")
    at = {"SSH_AUTH_SOCK": str(kagent.socket)}
    cases = [
        ([path], {}, "SSH_AUTH_SOCK is not set"),
        ([path], {"SSH_AUTH_SOCK": "/nowhere"}, "/nowhere: No such file"),
        (["/nowhere"], at, "/nowhere: No such file"),
        ([f"{path}.pub"], at, "invalid format"),
        ([], at, "usage: "),
    ]
    for words, env, told in cases:
        done = prove(*words, **env)
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "kagent.cli.ctl.main", "prove", path],
        user="nobody",
        env={"PATH": PATH, **at},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 2
    assert "only root may read" in done.stderr


def test_what_can_not_be_read_proves_nothing(person: Person) -> None:
    path = person.key("ed25519", "-t", "ed25519")
    with running(BEYOND, person.home / "file") as pid:
        done = prove(path, "--pid", str(pid))
        assert done.returncode == 2
        assert "nothing; 4 KiB can't be read" in done.stdout
        assert "not proved: not all of the agent's memory could be read" in done.stdout
        # Nor what somebody else debugs.
        with Still() as still:
            still.hold(pid)
            done = prove(path, "--pid", str(pid))
    assert done.returncode == 2
    assert "can't be read: Operation not permitted" in done.stdout


def test_an_agent_that_is_somewhere_else(kagent: Agent) -> None:
    """The process at the socket only forwards, as sshd does."""
    path = kagent.person.key("ed25519", "-t", "ed25519")
    forwarded = kagent.person.home / "forwarded"
    with running(FORWARDER, forwarded, kagent.socket):
        done = prove(path, SSH_AUTH_SOCK=str(forwarded))
    assert done.returncode == 2
    assert "is none of those that have the socket open" in done.stderr


def named(person: Person) -> NamedPrivateKey:
    return parse(person.key("ed25519", "-t", "ed25519").read_bytes())[0]


def test_a_key_that_is_moved_meanwhile_is_found(person: Person) -> None:
    one = named(person)
    seed = one.key.seed_and_point[:32]  # type: ignore[union-attr]
    needles = Needles({"x": one.key})
    with running(MOVER, send=f"{seed.hex()}\n") as pid:
        for _ in range(5):
            with Still() as still:
                still.hold(pid)
                assert Search(needles).look(pid).found


def test_a_worker_that_ends_was_at_its_work(person: Person) -> None:
    """It is told of, and counted as one."""
    with Control() as control:
        path = person.key("ed25519", "-t", "ed25519")
        one = parse(path.read_bytes())[0]
        with running(HOLDER, path) as pid:

            def find() -> list[Process]:
                if next_time.pop():
                    os.kill(pid, signal.SIGTERM)  # which it gets when it goes on
                return below(pid)

            next_time = [True, False]
            done = examine(find, {"x": (one.key, der(library_key(one)))}, control)
    [looked] = done.agent
    assert looked.seen.found
    assert looked.ended
    assert done.verdict is Verdict.NOTHING


def test_a_control_that_has_it_not(person: Person) -> None:
    """Then the search is worthless, and says so."""
    with Control() as control, running(IDLE) as pid:
        one = named(person)
        other = parse(person.key("other", "-t", "ed25519").read_bytes())[0]
        done = examine(lambda: below(pid), {"x": (one.key, der(library_key(other)))}, control)
    assert done.verdict is Verdict.NOT_PROVED
    assert done.doubts == [
        "the search doesn't find what is there, in the control: seed of x",
    ]


def test_a_control_that_has_it_before(person: Person) -> None:
    one = named(person)
    with Control() as control, running(IDLE) as pid:
        done = examine(lambda: below(pid), {"x": (one.key, der(library_key(one)))}, control)
    assert done.verdict is Verdict.NOT_PROVED
    assert done.doubts == ["the search finds keys where they are not"]


def test_who_is_killed_lets_go(person: Person) -> None:
    with running("print('ready', flush=True)\nwhile True: pass") as pid:
        child = os.fork()
        if child == 0:
            try:
                still = Still()
                still.hold(pid)
                time.sleep(SECONDS)
            finally:
                os._exit(1)
        wait_until(lambda: state(pid) == "t")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wait_until(lambda: state(pid) == "R")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_threads_are_held_too_and_signals_are_not_lost() -> None:
    code = (
        "import signal, sys, threading, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('signalled', flush=True))\n"
        "# For the first thread, which else would not wake up to call the handler.\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(9)]\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as one:
        assert one.stdout
        assert one.stdout.readline() == "ready\n"
        with Still() as still:
            still.hold(one.pid)
            threads = [int(name) for name in os.listdir(f"/proc/{one.pid}/task")]
            assert len(threads) == 10
            assert {state(thread) for thread in threads} == {"t"}
            one.send_signal(signal.SIGUSR1)
        assert one.stdout.readline() == "signalled\n"
        one.communicate("\n")
    assert one.returncode == 0


def test_whose_socket_it_is(kagent: Agent) -> None:
    link = kagent.person.home / "link"
    link.symlink_to(kagent.socket)
    processes = {kagent.keeper, kagent.front}
    for path in (kagent.socket, link):
        assert {one.pid for one in holding(str(path))} == processes
    assert holding("/nowhere") == []
