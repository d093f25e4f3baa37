"""kagent as systemd starts it: a socket that is there already, and kagent only when needed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kagent.keeper import listener
from tests.support.manual import block
from tests.support.programs import PATH, SECONDS, Person, children_of, wait_until

# What systemd does for a unit with a socket: waits for a client, starts the service with the
# listening socket as descriptor 3, and does so again when it has ended.
MANAGER = """
import os, select, signal, socket, subprocess, sys
path, log, *command = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path + ".new")
listener.listen(128)
os.rename(path + ".new", path)  # it is there when it can be connected to
os.dup2(listener.fileno(), 3)
starter = (
    "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
running, ending = None, False
def end(*_):
    global ending
    ending = True
    if running is None or running.returncode is not None:
        sys.exit()
    os.kill(running.pid, signal.SIGTERM)
signal.signal(signal.SIGTERM, end)
while not ending:
    select.select([listener], [], [])
    with open(log, "ab") as output:
        running = subprocess.Popen(
            [sys.executable, "-c", starter, *command], pass_fds=[3], stderr=output,
            env={**os.environ, "LISTEN_FDS": "1"})
        code = running.wait()
        output.write(b"ended with %d\\n" % code)
"""


class Service:
    """kagent behind a socket that outlives it."""

    def __init__(self, person: Person, process: subprocess.Popen[str]) -> None:
        self.person = person
        self.process = process
        self.socket = person.home / "service.sock"
        self.log = person.home / "service.log"

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.person.run(*command, check=check, SSH_AUTH_SOCK=str(self.socket))

    @property
    def keepers(self) -> list[int]:
        """The one that runs, if one does."""
        return children_of(self.process.pid)

    @property
    def endings(self) -> int:
        """How often it has ended because it was idle."""
        return self.log.read_text().count("ended with 0")

    def answers(self) -> bool:
        """Whether a connection made now gets its answer: a list of no keys."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SECONDS)
            client.connect(str(self.socket))
            client.sendall(b"\0\0\0\1\x0b")
            return client.recv(9) == b"\0\0\0\5\x0c\0\0\0\0"


@contextlib.contextmanager
def service(
    person: Person, idle_exit: str, env: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """One with its own terms, or with those of a service if `idle_exit` is ""."""
    log = person.file("service.log", "")
    words = ["--keyring", "session", "--idle-exit", idle_exit] if idle_exit else []
    command = ["kagent", "-D", *words]
    with person.start(
        *(sys.executable, "-c", MANAGER, person.home / "service.sock", log, *command), env=env or {}
    ) as process:
        running = Service(person, process)
        try:
            wait_until(running.socket.exists)
            yield running
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_ends_when_idle_and_comes_back(person: Person) -> None:
    with service(person, "1s") as kagent:
        assert not kagent.keepers
        assert kagent.answers()
        [first] = kagent.keepers
        wait_until(lambda: kagent.endings == 1)
        assert kagent.answers()
        assert kagent.keepers != [first]


def test_that_it_is_stopped_is_no_failure(person: Person) -> None:
    """As ssh-agent, since OpenSSH 10.1."""
    with service(person, "1h") as kagent:
        assert kagent.answers()
    assert kagent.log.read_text().endswith("exiting on signal 15\nended with 0\n")


def test_no_request_is_lost_when_it_ends(person: Person) -> None:
    """A client that comes just when it ends is answered by the next."""
    with service(person, "1s") as kagent:
        assert kagent.answers()
        for offset in (-0.01, 0.0, 0.005, 0.01, 0.03):
            # The connection is counted from when it is accepted, just before it is answered.
            time.sleep(1 + offset)
            assert kagent.answers()
        assert kagent.endings > 0


def test_stays_with_what_would_be_lost(person: Person) -> None:
    """A sealed key, and a lock; it says so."""
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", person.home / "key")
    with service(person, "1s") as kagent:
        kagent.run("ssh-add", "-q", person.home / "key")
        keepers = kagent.keepers
        time.sleep(2.5)
        assert kagent.keepers == keepers
        kagent.run("ssh-add", "-T", person.home / "key.pub")
        told = json.loads(kagent.run("kagentctl", "status", "--json").stdout)
        assert told["keys"] == "1 sealed"
        assert told["signatures"] == 1
        assert "stays" in told["idle"]
        assert int(told["memory"].split()[0]) > 0
        kagent.run("ssh-add", "-q", "-D")
        wait_until(lambda: kagent.endings == 1)


def test_status_tells_the_last_refusal(person: Person) -> None:
    with service(person, "60s") as kagent:
        kagent.run("kagent-add", "-q", "-e", "/none", check=False)
        kagent.run("ssh-add", "-X", check=False)
        told = kagent.run("kagentctl", "status").stdout
        assert "ends when idle for 60 seconds" in told
        assert "refused:" in told


def test_terms_of_a_service(person: Person) -> None:
    """Without a word on its command line, and with kagent.toml's."""
    with service(person, "") as kagent:
        assert "ends when idle for 60 seconds" in kagent.run("kagentctl", "status").stdout
    kagent.socket.unlink()
    (person.home / ".config/kagent").mkdir(parents=True)
    person.file(".config/kagent/kagent.toml", "idle-exit = '2m'\n")
    with service(person, "") as kagent:
        assert "ends when idle for 120 seconds" in kagent.run("kagentctl", "status").stdout


def test_one_that_cannot_start_keeps_nobody_waiting(person: Person) -> None:
    """Each client is told so, and it isn't started over and over."""
    (person.home / ".config/kagent").mkdir(parents=True)
    person.file(".config/kagent/kagent.toml", "custody = 'none'\n")
    with service(person, "") as kagent:
        for _ in range(2):
            told = kagent.run("ssh-add", "-l", check=False)
            assert "communication with agent failed" in told.stderr
        wait_until(lambda: kagent.log.read_text().count("ended with 1") == 2)
        assert kagent.log.read_text().count("--custody takes") == 2


# No front gets to its first request.
WITHOUT_FRONT = """
import kagent.front.life
def run(*_):
    raise SystemExit(1)
kagent.front.life.run = run
"""


def test_one_whose_front_does_not_stay_keeps_nobody_waiting(person: Person) -> None:
    with service(person, "60s", person.changed_kagent(WITHOUT_FRONT)) as kagent:
        told = kagent.run("ssh-add", "-l", check=False)
        assert "communication with agent failed" in told.stderr
        wait_until(lambda: "ended with 1" in kagent.log.read_text())
        assert "doesn't stay up" in kagent.log.read_text()


def test_turning_away_has_an_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where clients come as fast as they are turned away: there is always one that waits."""
    monkeypatch.setattr(listener, "_MOST_WAITING", 2)
    with socket.socket(socket.AF_UNIX) as waited_at, contextlib.ExitStack() as crowd:
        waited_at.bind(str(folder / "socket"))
        waited_at.listen()
        for _ in range(3):
            client = crowd.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(folder / "socket"))
        listener.turn_away_waiting(waited_at.fileno())
        waited_at.accept()[0].close()
        with pytest.raises(BlockingIOError):
            waited_at.accept()


@pytest.mark.parametrize("path", ["", "/nobody/there"])
def test_status_without_an_agent(person: Person, path: str) -> None:
    """What is wrong with which path, and what to type next."""
    told = person.run("kagentctl", "status", check=False, SSH_AUTH_SOCK=path)
    assert told.returncode == 1
    assert told.stderr.startswith(f"kagentctl: no agent: SSH_AUTH_SOCK is {path or 'not set'}")
    assert "kagentctl install" in told.stderr


def test_uninstall_without_systemd(person: Person) -> None:
    """What to do instead, where there is something to undo and where there isn't."""
    told = person.run("kagentctl", "uninstall")
    assert told.stdout.endswith("what was started by hand ends with kagent -k\n")
    person.run("mkdir", "-p", ".config/systemd/user")
    unit = person.file(".config/systemd/user/kagent.socket", "")
    told = person.run("kagentctl", "uninstall", check=False)
    assert told.returncode == 1
    assert told.stderr.endswith(f"; to remove it without: rm {unit}\n")


def test_needs_a_socket_that_stays(person: Person) -> None:
    told = person.run("kagent", "-D", "--idle-exit", "60s", check=False)
    assert (told.returncode, told.stdout) == (1, "")
    assert "needs a socket" in told.stderr
    assert not list((person.home / ".ssh/agent").iterdir())


def test_takes_no_other_descriptor_for_a_socket(person: Person) -> None:
    told = person.run(
        *("sh", "-c", "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec kagent -D"), check=False
    )
    assert told.returncode == 1
    assert "not a socket" in told.stderr.lower() or "socket operation" in told.stderr.lower()


def test_systemd_is_told(person: Person, folder: Path) -> None:
    """By the process that it has started: it listens to no other, with NotifyAccess=main."""

    def told() -> tuple[bytes, int]:
        data, ancillary, _, _ = manager.recvmsg(100, socket.CMSG_SPACE(12))
        [(_, _, credentials)] = ancillary
        return data, struct.unpack("3i", credentials)[0]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        os.chmod(folder / "notify", 0o777)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(SECONDS)
        process = person.start(
            *("kagent", "-D", "-a", person.home / "socket"),
            env={"NOTIFY_SOCKET": str(folder / "notify")},
            stdout=subprocess.DEVNULL,
        )
        with process:
            assert told() == (b"READY=1", process.pid)
            process.terminate()
            assert told() == (b"STOPPING=1", process.pid)


# What install asks of systemd: two others that set the variable run, of which one is behind.
SYSTEMCTL = """\
#!/bin/sh
case "$*" in
*list-units*) echo "gpg-agent-ssh.socket loaded active"; echo "ssh-agent.socket loaded active" ;;
*"show gpg-agent-ssh.socket"*) echo "Listen=$HOME/a %\\"\\$ path (Stream)" ;;
esac
"""


def test_installed_with_gpg_agent_behind(person: Person) -> None:
    """As the manual pages say."""
    (person.home / "bin").mkdir()
    person.file("bin/systemctl", SYSTEMCTL, 0o700)
    socket = person.run("gpgconf", "--list-dirs", "agent-ssh-socket").stdout.strip()
    unit = person.home / ".config/systemd/user/kagent.service"
    for typed in (
        block("kagent.1", "kagentctl install --behind"),
        block("kagent.7", "kagentctl install --behind"),
    ):
        person.run("sh", "-euc", typed, PATH=f"{person.home / 'bin'}:{PATH}")
        assert re.search(rf" --behind \"?{re.escape(socket)}\"?$", unit.read_text(), re.MULTILINE)
        unit.unlink()


def test_installed_with_an_agent_behind(person: Person) -> None:
    """Its path, whatever is in it, is the unit's until it is installed anew without."""
    (person.home / "bin").mkdir()
    person.file("bin/systemctl", SYSTEMCTL, 0o700)
    path = f"{person.home / 'bin'}:{PATH}"
    socket = person.home / 'a %"$ path'
    told = person.run("kagentctl", "install", "--behind", socket.name, PATH=path).stdout
    assert "SSH_AUTH_SOCK is set by ssh-agent.socket too" in told
    unit = person.home / ".config/systemd/user/kagent.service"
    verify = ["systemd-analyze", "verify", "--user", "--man=no", unit]
    said = person.run(*verify, check=False, XDG_RUNTIME_DIR="/run").stderr
    assert "kagent" not in said.replace("is not executable", "")
    [line] = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    *_, option, value = shlex.split(line)
    assert (option, value) == ("--behind", str(socket).replace("%", "%%").replace("$", "$$"))
    person.run("kagentctl", "install", PATH=path)
    assert "behind" not in unit.read_text()
