"""What the tests run: a person's programs, kagent, and OpenSSH's agent and server."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
PATH = f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_numbers = itertools.count()
# Runs two programs with the same arguments, which must say and end the same.
Same = Callable[..., subprocess.CompletedProcess[str]]
RSA = ("-t", "rsa", "-b", "2048")  # ssh-keygen's options
SECONDS = 60  # for what should take a moment; an emulated machine is slow


def wait_until(true: Callable[[], object], seconds: float = SECONDS) -> None:
    """Poll `true`; fails the test when it stays false."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{true} didn't come true in {seconds} seconds"
        time.sleep(0.02)


@dataclass(frozen=True)
class Person:
    """A user with a home; programs run as that user, with nothing of the tests' environment."""

    name: str
    uid: int
    gid: int
    home: Path

    @classmethod
    def named(cls, name: str | None, home: Path) -> Person:
        """The user of that name (None: who runs the tests), who gets `home`."""
        about = pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())
        home.mkdir(mode=0o700)
        os.chown(home, about.pw_uid, about.pw_gid)
        return cls(about.pw_name, about.pw_uid, about.pw_gid, home)

    def start(self, *command: str | Path, **options: object) -> subprocess.Popen[str]:
        """Start a program; `env` adds to a small environment, the rest goes to Popen."""
        given = options.pop("env", {})
        environment = {"PATH": PATH, "HOME": str(self.home), "LANG": "C.UTF-8", **given}  # type: ignore[dict-item]
        if os.getuid() == 0 and self.uid != 0:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            **{"cwd": self.home, "text": True, "stdin": subprocess.DEVNULL} | options,  # type: ignore[call-overload]
        )

    def run(
        self, *command: str | Path, input: str | None = None, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and give what it wrote; `check` fails the test on an error."""
        pipe = subprocess.PIPE
        with self.start(
            *command,
            env=env,
            stdin=subprocess.DEVNULL if input is None else pipe,
            stdout=pipe,
            stderr=pipe,
        ) as process:
            try:
                out, err = process.communicate(input, timeout=SECONDS)
            except BaseException:
                process.kill()
                raise
        if check:
            assert process.returncode == 0, f"{command}: {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def file(self, name: str, content: str | bytes | Path, mode: int = 0o600) -> Path:
        """A file of the person's own; a path as `content` is copied."""
        path = self.home / name
        data = content.read_bytes() if isinstance(content, Path) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        os.chown(path, self.uid, self.gid)
        return path

    def changed_kagent(self, code: str) -> dict[str, str]:
        """A kagent that executes that Python before it starts; the environment in which it is."""
        folder = self.home / "bin"
        folder.mkdir(mode=0o755)
        main = "from kagent.cli.agent import main\nraise SystemExit(main())\n"
        self.file("bin/kagent", f"#!{sys.executable}\n{code}\n{main}", mode=0o755)
        return {"PATH": f"{folder}:{PATH}"}

    def key(self, name: str, *options: str, passphrase: str = "", comment: str = "") -> Path:
        """A key pair of the person's own, Ed25519 without `options`, which are ssh-keygen's."""
        path = self.home / name
        words = ["-N", passphrase, "-C", comment or f"{name} käse", "-f", path]
        self.run("ssh-keygen", "-q", *words, *(options or ("-t", "ed25519")))
        return path


@dataclass
class Agent:
    """A running agent."""

    person: Person
    process: subprocess.Popen[str]
    socket: Path
    log: Path

    def run(
        self, *command: str | Path, input: str | None = None, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that has this agent."""
        return self.person.run(
            *command, input=input, check=check, **{"SSH_AUTH_SOCK": str(self.socket), **env}
        )

    def connect(self) -> socket.socket:
        """A connection of the tests' own."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(SECONDS)

        def connected() -> bool:
            try:
                stream.connect(str(self.socket))
            except ConnectionRefusedError:
                return False  # ssh-agent's socket is there a moment before it listens
            return True

        wait_until(connected)
        return stream

    @property
    def keeper(self) -> int:
        """The process that has the keys: kagent's is a fork of the one in the foreground."""
        forks = children_of(self.process.pid)
        return next((pid for pid in forks if _name(pid) == "kagent-keeper"), self.process.pid)

    @property
    def children(self) -> list[int]:
        """The keeper's, but for the lookout, which the first signature brings."""
        lookouts = self.lookouts
        return [pid for pid in children_of(self.keeper) if pid not in lookouts]

    @property
    def signers(self) -> list[int]:
        """kagent's processes that wait for something to be signed with a sealed key."""
        parents = [pid for pid in self.children if _name(pid) == "kagent-signers"]
        return [pid for parent in parents for pid in children_of(parent)]

    @property
    def lookouts(self) -> list[int]:
        """kagent's process that tells who asks, once there is one."""
        return [pid for pid in children_of(self.keeper) if _name(pid) == "kagent-lookout"]

    @property
    def front(self) -> int:
        """kagent's process that serves clients, as soon as it is up."""

        found: list[int] = []

        def found_one() -> bool:
            found[:] = [pid for pid in self.children if _name(pid) == "kagent-front"]
            return len(found) == 1

        wait_until(found_one)
        return found[0]

    def logged(self) -> str:
        """What the agent has said."""
        return self.log.read_text()


def children_of(pid: int) -> list[int]:
    """The children of a process without threads."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in children.split()]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def agent(
    person: Person,
    program: str | Path = "kagent",
    *options: str | Path,
    env: dict[str, str] | None = None,
) -> Iterator[Agent]:
    """An agent in the foreground, at a socket in the person's home, until the block ends."""
    name = f"{Path(program).name}-{next(_numbers)}"
    path = person.home / f"{name}.sock"
    log = person.file(f"{name}.log", "")
    with log.open("a") as output:
        process = person.start(
            *(program, "-d" if "-d" in options else "-D", "-a", path),
            *(option for option in options if option != "-d"),
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=env or {},
        )
    with process:
        try:
            running = Agent(person, process, path, log)
            wait_until(lambda: path.exists() or process.poll() is not None)
            if program == "kagent":
                wait_until(lambda: running.keeper != process.pid or process.poll() is not None)
            assert process.poll() is None, running.logged()
            if name.startswith("ssh-agent"):
                running.connect().close()  # see there
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def variables(out: str) -> dict[str, str]:
    """What the shell would have after evaluating `out`."""
    return dict(re.findall(r"(SSH_\w+)[ =]([^;]*);", out))


@contextmanager
def background(
    person: Person, program: str | Path, *words: str | Path, **env: str
) -> Iterator[str]:
    """Start an agent that goes into the background; ends with the block, if not before."""
    out = person.run(program, *words, **env).stdout
    pid = int(variables(out)["SSH_AGENT_PID"])
    try:
        yield out
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Sshd:
    """A server on this machine that lets its person in."""

    port: int
    folder: Path
    log: Path
    programs: Path | None

    def ssh(self, person: Person, *options: str) -> list[str]:
        """The words of an ssh command to it, without the remote command."""
        known = self.folder / "known_hosts"
        settings = {
            "UserKnownHostsFile": known,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            # Not what is tested, and a post-quantum exchange takes an emulated machine a second.
            "KexAlgorithms": "curve25519-sha256",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        place = ["-p", str(self.port), f"{person.name}@127.0.0.1"]
        program = str(self.programs / "ssh") if self.programs else "ssh"
        return [program, "-F", "none", *words, *options, *place]


@contextmanager
def sshd(
    person: Person,
    folder: Path,
    authorized: str,
    *,
    programs: Path | None = None,
    host_key: str = "ed25519",
    **settings: str,
) -> Iterator[Sshd]:
    """OpenSSH's server for `person`, whose keys are the lines `authorized`.

    `programs` has another OpenSSH than this machine's; `host_key` is ssh-keygen's -t.
    """
    folder.mkdir()
    folder.chmod(0o755)
    path = f"{programs}:{PATH}" if programs else PATH
    keygen, program = (shutil.which(name, path=path) for name in ("ssh-keygen", "sshd"))
    assert keygen, "ssh-keygen is missing"
    assert program, "sshd is missing"
    subprocess.run([keygen, "-q", "-t", host_key, "-N", "", "-f", folder / "host"], check=True)
    (folder / "authorized").write_text(authorized)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    public = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    configuration = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "UsePAM": "no",
        "StrictModes": "no",
        "PidFile": "none",
        "PasswordAuthentication": "no",
        "LogLevel": "VERBOSE",
        "MaxStartups": "100",
        "PermitUserEnvironment": "no",
        **settings,
        **(
            {f"Sshd{part}Path": programs / f"sshd-{part.lower()}" for part in ("Session", "Auth")}
            if programs
            else {}
        ),
    }
    text = "".join(f"{name} {value}\n" for name, value in configuration.items())
    (folder / "config").write_text(text)
    log = folder / "log"
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # what Debian's init does
    with (
        log.open("w") as output,
        subprocess.Popen(
            [program, "-D", "-e", "-f", folder / "config"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            wait_until(lambda: "Server listening" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield Sshd(port, folder, log, programs)
        finally:
            process.terminate()
            process.wait(SECONDS)
