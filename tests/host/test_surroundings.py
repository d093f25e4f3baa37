"""Whatever is amiss where a command is started: the matrix of faults and commands.

The standard is what ssh-agent and ssh-add do in the same case; where kagent does something else,
DIFFERENT says so.  Nothing ends in a traceback, and nothing is left running.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from kagent.confine.process import prctl
from kagent.keyctl import session_keyring, syscalls
from kagent.openssh import skhelper
from kagent.openssh.helpers import HelperError
from kagent.provision.backends import Command
from tests.support import faults
from tests.support.faults import Fault
from tests.support.frames import LISTING, NOTHING, ask
from tests.support.programs import (
    PATH,
    SECONDS,
    Person,
    agent,
    children_of,
    is_running,
    wait_until,
)

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
NOBODY = 54321  # a uid that no user has

FAULTS = {
    "none": Fault(),
    "no stdin": Fault(faults.closed(0)),
    "no stdout": Fault(faults.closed(1)),
    "no stderr": Fault(faults.closed(2)),
    "no descriptors": Fault(faults.closed(0, 1, 2)),
    "nobody reads": Fault(faults.nobody_reads),
    "stdout full": Fault(faults.full(1)),
    "stderr full": Fault(faults.full(2)),
    "signals ignored": Fault(faults.ignored(signal.SIGCHLD, signal.SIGALRM)),
    "signals blocked": Fault(faults.blocked(signal.SIGCHLD, signal.SIGALRM)),
    "latin-1": Fault(),  # and the variables of a locale that is made
    "ascii": Fault(env={"LC_ALL": "C", "LANG": None, "PYTHONCOERCECLOCALE": "0"}),
    "folder gone": Fault(faults.folder_gone),
    "100 files": Fault(faults.descriptors(100)),
    "12 files": Fault(faults.descriptors(12)),
    "no add_key": Fault(faults.NO_KEYS),
    "no seccomp": Fault(faults.NO_FILTERS),
    "no pidfd_open": Fault(faults.NO_PIDFD),
    "no /proc": Fault(prefix=faults.NO_PROC, root=True),
    "session revoked": Fault(faults.session_revoked),
    "no HOME": Fault(env={"HOME": None}),
    "HOME not writable": Fault(env={"HOME": "/proc"}),
    "HOME too long": Fault(),  # and one that is made
    "no user": Fault(env={"HOME": None}, root=True),  # and a uid that nobody has
    "stray modules": Fault(),  # and where they are
}

COMMANDS: dict[str, tuple[str | bytes, ...]] = {
    "start": ("kagent", "-s"),
    "start at": ("kagent", "-s", "-a", b"s\xe4"),
    "command": ("kagent", "-a", "s", "sh", "-c", "exit 7"),
    "start private": ("kagent", "-s", "-a", "p", "--keyring", "private"),
    "kill": ("kagent", "-k"),
    "wrong": ("kagent", "-Z"),
    "version": ("kagent", "-V"),
    "help": ("kagent", "--help"),
    "list": ("kagent-add", "-l"),
    "keys": ("kagent-add", "-L"),
    "add": ("kagent-add", "key"),
    "add latin-1": ("kagent-add", b"k\xe4y"),
    "add none": ("kagent-add", b"n\xf6ne"),
    "locked": ("kagent-add", "-X"),
    "test": ("kagent-add", "-T", "key.pub"),
    "doctor": ("kagentctl", "doctor"),
    "show": ("kagentctl", "show"),
    "status": ("kagentctl", "status"),
    "shared": ("kagentctl", "shared"),
    "share": ("kagentctl", "share", b"k\xe4y", "--with", b"n\xf6body"),
    "ctl help": ("kagentctl", "--help"),
    "provision": ("kagent-provision", "check"),
}
STANDARDS = {"kagent": "ssh-agent", "kagent-add": "ssh-add"}
# Of the others, the exit codes where nothing is amiss.  status: another agent answers.
OWN = {
    "start private": 0,
    "version": 0,
    "help": 0,
    "doctor": 0,
    "show": 0,
    "status": 1,
    "shared": 0,
    "share": 1,
    "ctl help": 0,
    "provision": 1,
}

_STARTS = ("start", "start at", "start private", "command")
_PRINTS = ("list", "keys", "start", "start at", "start private")
_OWN_PRINTS = ("help", "doctor", "show", "ctl help")
DIFFERENT: dict[str, dict[str, int]] = {
    # What nobody gets isn't done.  An agent of which nobody could be told ends.
    "stdout full": dict.fromkeys((*_PRINTS, *_OWN_PRINTS), 1),
    "nobody reads": dict.fromkeys((*_OWN_PRINTS, "start private"), -signal.SIGPIPE),
    # What kagent needs, and ssh-agent doesn't.
    "folder gone": {"start private": 1},
    "12 files": dict.fromkeys(_STARTS, 1),
    "no add_key": dict.fromkeys((*_STARTS, "doctor"), 1),
    "no seccomp": dict.fromkeys((*_STARTS, "doctor"), 1),
    "no /proc": dict.fromkeys((*_STARTS, "show", "shared"), 1),
    "session revoked": dict.fromkeys((*_STARTS, "doctor", "show", "shared"), 1)
    | {"start private": 0},
    # ssh-agent of OpenSSH 10 has its socket at home too; here may be an older one.
    "HOME not writable": {"start": 1},
    "HOME too long": {"start": 1},
    "no user": {"start": 1},
}


class Place(NamedTuple):
    """Where commands are started: by whom, and the variables of a case."""

    person: Person
    fault: Fault
    env: dict[str, str]

    def run(self, words: tuple[str | bytes, ...]) -> subprocess.CompletedProcess[bytes]:
        options: dict[str, int] = {}
        if os.getuid() == 0 and self.person.uid != 0:
            options = {"user": self.person.uid, "group": self.person.gid}
        # Output goes to files: a pipe would be read until all have closed it.
        out, err = (self.person.home / name for name in ("out", "err"))
        with out.open("wb") as output, err.open("wb") as errors:
            done = subprocess.run(
                [*self.fault.prefix, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=self.person.home,
                env=self.env,
                preexec_fn=self.fault.before,
                timeout=SECONDS,
                **options,  # type: ignore[call-overload]
            )
        return subprocess.CompletedProcess(
            words, done.returncode, out.read_bytes(), err.read_bytes()
        )


@pytest.fixture
def place(request: pytest.FixtureRequest, person: Person, folder: Path) -> Iterator[Place]:
    """That of the fault of a test, with a stock ssh-agent that has a key."""
    name = request.param
    fault = FAULTS[name]
    if fault.root and os.getuid() != 0:
        pytest.skip("only root can have it so")
    person.key("key")
    person.key("k\udce4y", comment="k\udce4se")
    given: dict[str, str | None] = {"PATH": PATH, "HOME": str(person.home), "LANG": "C.UTF-8"}
    given |= fault.env
    match name:
        case "latin-1":
            given |= faults.latin_1(folder) or pytest.skip("no locale in ISO-8859-1 can be made")
        case "HOME too long":
            home = person.home / ("x" * 100)
            home.mkdir()
            os.chown(home, person.uid, person.gid)
            given |= {"HOME": str(home)}
        case "no user":
            person = replace(person, uid=NOBODY, gid=NOBODY)
            for path in (person.home, *person.home.iterdir()):
                os.chown(path, NOBODY, NOBODY)
            syscalls.chown(session_keyring().serial, NOBODY, NOBODY)
        case "stray modules":
            stray = faults.stray_modules(folder / "stray")
            shutil.copytree(stray, person.home, dirs_exist_ok=True)
            given |= {"PYTHONPATH": str(stray), "PYTHONHOME": str(stray)}
    with agent(person, "ssh-agent") as other:
        other.run("ssh-add", "-q", "key")
        given |= {"SSH_AUTH_SOCK": str(other.socket)}
        yield Place(person, fault, {key: value for key, value in given.items() if value})


@pytest.fixture(autouse=True)
def _reaper() -> Iterator[None]:
    """Processes that lose their parent become children of the tests'."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    yield
    prctl(_PR_SET_CHILD_SUBREAPER, 0)


def children() -> set[int]:
    """The tests' processes that have not ended."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return set(filter(is_running, found))


def answers(path: Path) -> bool:
    """Whether an agent lists its keys there."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(SECONDS)
        stream.connect(os.fsencode(path))
        return ask(stream, LISTING) == NOTHING


def sockets(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if path.is_socket()}


def outcome(place: Place, name: str, words: tuple[str | bytes, ...]) -> tuple[int, bytes]:
    """The exit code, and all that was said; waits until nothing of it runs any more.

    Of a command that starts an agent, and says so, that is ended before.
    """
    before, there = children(), sockets(place.person.home)
    done = place.run(words)
    left = children() - before
    if words[0] == "kagent":
        started = name.startswith("start") and done.returncode == 0
        assert len(left) == started or name == "command", (name, done)
        if started:
            assert all(map(answers, sockets(place.person.home) - there)), name
    if name != "command" or words[0] == "ssh-agent":  # that looks for its command now and then
        for pid in left:
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not children() - before)
    for path in sockets(place.person.home) - there:
        # ssh-agent leaves one that it knows by a relative path.
        assert words[0] == "ssh-agent", (name, path)
        path.unlink()
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("place", FAULTS, indirect=True, ids=str)
def test_matrix(place: Place, request: pytest.FixtureRequest) -> None:
    fault = request.node.callspec.params["place"]
    expected, found = {}, {}
    for name, words in COMMANDS.items():
        standard = STANDARDS.get(str(words[0]))
        if standard and name not in OWN:
            expected[name] = outcome(place, name, (standard, *words[1:]))[0]
        else:
            expected[name] = OWN[name]
        found[name], told = outcome(place, name, words)
        assert b"Traceback" not in told, (name, told)
        assert b"rror ignored" not in told, (name, told)
    print(fault, found)
    assert found == expected | DIFFERENT.get(fault, {})


# The rest is what the matrix doesn't see: what is said, and what becomes of an agent's work.


def said(place: Place, *words: str) -> str:
    """What a command says that ends with 1."""
    done = place.run(words)
    assert done.returncode == 1, done
    return (done.stdout + done.stderr).decode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("12 files", "the agent can't go on: [Errno 24] Too many open files"),
        ("no add_key", "in a container allow add_key"),
        ("no seccomp", "allow prctl and seccomp in the container's seccomp profile"),
        ("no /proc", "/proc must be mounted"),
        ("session revoked", "keyctl session"),
        ("no HOME", ""),
        ("HOME not writable", "cannot make /proc/.ssh"),
        ("HOME too long", "/.ssh/agent/s."),
        ("no user", f"HOME is not set, and there is no user of uid {NOBODY}"),
    ],
    indirect=["place"],
)
def test_who_cannot_start_is_told_why(place: Place, advice: str) -> None:
    if not advice:  # the home is in the user database
        outcome(place, "start", ("kagent", "-s"))
        return
    told = said(place, "kagent", "-s")
    assert advice in told
    assert len(told.splitlines()) == 1
    if "ssh" in advice or "HOME" in advice:
        assert "kagent -T" in told
    if "keyctl" in advice:
        assert "--keyring" in told


@pytest.mark.parametrize("place", ["none"], indirect=True)
def test_an_agent_ends_of_which_nobody_was_told(place: Place) -> None:
    before, path = children(), place.person.home / "s"
    with place.person.start("kagent", "-s", "-a", path) as starter:
        wait_until(lambda: children_of(starter.pid))
        starter.kill()
    wait_until(lambda: not children() - before)
    assert not path.exists()


@pytest.mark.parametrize("place", ["session revoked"], indirect=True)
@pytest.mark.parametrize("keyring", ["user", "persistent", "private"])
def test_without_a_session_other_keyrings_do(place: Place, keyring: str) -> None:
    words = ("kagent", "-a", "s", "--keyring", keyring, "sh", "-c", "ssh-add key && ssh-add -T key")
    assert outcome(place, "command", words)[0] == 0
    told = said(place, "kagentctl", "doctor")
    assert "keyctl session" in told
    assert "profile" not in told


@pytest.mark.parametrize("place", ["no add_key"], indirect=True)
def test_doctor_names_the_call_that_is_blocked(place: Place) -> None:
    assert "a filter from outside blocks add_key\n" in said(place, "kagentctl", "doctor")


def test_whose_session_it_is(person: Person) -> None:
    """doctor says so where it is another user's, as after su."""
    if os.getuid() != 0 or person.uid != 0:
        pytest.skip("only root can give a keyring away")
    ring = session_keyring().serial
    syscalls.setperm(ring, 0x3F3F0000)
    syscalls.chown(ring, NOBODY, NOBODY)
    told = person.run("kagentctl", "doctor", check=False).stdout
    assert f"isn't this login's own: it is of uid {NOBODY}" in told


SCRIPT = "echo $0 $@ >said; exit 7\n"


def test_a_script_without_a_first_line(person: Person) -> None:
    """As the command, by its path and by PATH."""
    script = person.file("no-first-line", SCRIPT, mode=0o700)
    for number, word in enumerate((str(script), f"./{script.name}", script.name)):
        told = []
        for program in ("ssh-agent", "kagent"):
            words = (program, "-a", person.home / f"{program}{number}", word, "a b")
            done = person.run(*words, check=False, PATH=f"{PATH}:{person.home}")
            told.append((done.returncode, (person.home / "said").read_text()))
        assert told[0] == told[1]
        assert told[1][0] == 7


@pytest.mark.parametrize("place", ["none", "signals ignored", "signals blocked"], indirect=True)
def test_a_command_has_the_signals_of_a_program(place: Place) -> None:
    """Without what Python does to them, and without what our parent did to us."""
    words = ("kagent", "-a", "s", "grep", "Sig[BI]", "/proc/self/status")
    told = outcome(place, "command", words)[1]
    assert set(re.findall(rb":\t0*(.*)", told)) == {b""}


ASKPASS = """\
cd "${0%/*}"
printf '%s\\n' "$1" >asked
test ! -e no
"""


@pytest.mark.parametrize(
    "place",
    [
        *("none", "no descriptors", "signals ignored", "signals blocked", "latin-1", "ascii"),
        *("100 files", "no pidfd_open"),
    ],
    indirect=True,
)
def test_a_confirmation(place: Place) -> None:
    """By an askpass without #!, which gets the comment as it is in the key."""
    home = place.person.home
    askpass = place.person.file("askpass", ASKPASS, mode=0o700)
    place.env.update(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    sign = 'ssh-add -q -c "$1" && ssh-add -T "$1" && touch no && ! ssh-add -T "$1"'
    asked = []
    for program in ("ssh-agent", "kagent"):
        words = (program, "-a", "s", "sh", "-c", sign, "sh", b"k\xe4y")
        code, told = outcome(place, "command", words)
        assert code == 0, told
        asked.append((home / "asked").read_bytes().split(b"\n"))
        (home / "no").unlink()
    theirs, ours = asked
    assert ours[1] == theirs[1]
    assert len(ours) > 3


@pytest.mark.parametrize(
    "place",
    ["no descriptors", "signals ignored", "signals blocked", "no pidfd_open"],
    indirect=True,
)
def test_a_passphrase(place: Place) -> None:
    """By an askpass without #!, whose exit code counts."""
    place.person.key("locked", passphrase="geheim")
    script = "echo geheim; test ! -e ${0%/*}/no\n"
    askpass = place.person.file("askpass", script, mode=0o700)
    place.env.update(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    for program in ("ssh-add", "kagent-add"):
        assert outcome(place, "", (program, "locked"))[0] == 0
    place.person.file("no", "")
    for program in ("ssh-add", "kagent-add"):
        assert outcome(place, "", (program, "locked"))[0] == 1


def test_a_helper_without_a_first_line(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = person.file("helper", "exit 3\n", mode=0o700)
    monkeypatch.setenv("SSH_SK_HELPER", str(helper))
    with pytest.raises(HelperError, match="broke off"):
        skhelper.load_resident("internal", "")


def test_a_backend_without_a_first_line(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root's programs are backends")
    backend = Path("/run") / folder.name  # where only root can write
    backend.write_text('echo "$0 $1"\n')
    backend.chmod(0o700)
    try:
        printed = Command((str(backend), "a b")).fetch(SECONDS, 2)
        assert printed == f"{backend} a b\n".encode()
    finally:
        backend.unlink()


@pytest.mark.parametrize("place", ["none", "latin-1", "ascii"], indirect=True)
def test_bytes_go_out_as_they_came(place: Place) -> None:
    """Paths and comments, whatever they are in."""
    for comment in (b"k\xe4se", "käse".encode(), b"\xff\xa0\xc3"):
        place.run(("ssh-keygen", "-q", "-c", "-C", comment, "-f", b"k\xe4y"))
        theirs, ours = (
            [
                outcome(place, "", (program, *words))
                for words in ([b"k\xe4y"], ["-l"], ["-L"], [b"n\xf6ne"], ["-d", b"k\xe4y"])
            ]
            for program in ("ssh-add", "kagent-add")
        )
        assert ours == theirs


def test_a_comment_steers_no_terminal(person: Person) -> None:
    """Not even one in ISO-8859, where these bytes do."""
    person.key("key", comment="a\udc9b31m\x1b[31m\u009b31m")
    with agent(person, "ssh-agent") as other:
        other.run("ssh-add", "-q", "key")
        told = other.run("kagent-add", "-l").stdout
    assert "31m\\x1b[31m\\x9b31m" in told
    assert told.isascii()


@pytest.mark.parametrize("place", ["latin-1", "ascii", "none"], indirect=True)
def test_a_terminal_gets_its_own_charset(place: Place) -> None:
    """In UTF-8, a letter may have a byte that steers one in ISO-8859."""
    place.run(("ssh-keygen", "-q", "-c", "-C", "käśe", "-f", "key"))
    place.run(("ssh-add", "-q", "key"))
    master, terminal = pty.openpty()
    fault = replace(place.fault, before=lambda: os.dup2(terminal, 1))
    place._replace(fault=fault).run(("kagent-add", "-l"))
    shown = os.read(master, 1000)
    os.close(terminal)
    os.close(master)
    latin = place.env.get("LC_ALL", "").endswith("8859-1")
    assert ("k\xe4\\u015be".encode("latin-1") if latin else "käśe".encode()) in shown


def test_programs_are_isolated() -> None:
    """All that are installed; so that this holds for a new one too."""
    found = sorted(path for path in Path(sys.executable).parent.glob("kagent*"))
    assert [path.name for path in found] == [
        "kagent",
        "kagent-add",
        "kagent-provision",
        "kagentctl",
    ]
    for path in found:
        assert re.search(r'^ *(exec )?"\$.*" -IXutf8 ', path.read_text(), re.MULTILINE), path


def test_a_program_finds_its_python_by_a_link(person: Person, folder: Path) -> None:
    """As pipx makes them."""
    link = folder / "kagent"
    link.symlink_to(Path(sys.executable).with_name("kagent"))
    assert person.run(link, "-V").stderr.startswith("kagent ")


def test_memory_is_counted_once(person: Person) -> None:
    with agent(person) as kagent:
        person.key("key")
        kagent.run("ssh-add", "-q", "key")
        kagent.run("ssh-add", "-T", "key")
        told = kagent.run("kagentctl", "status").stdout
        [memory] = re.findall(r"^memory: *(\d+) MiB", told, re.MULTILINE)
        family = [kagent.process.pid, *kagent.children, *kagent.signers, *kagent.lookouts]
        resident = [
            int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) // 1024
            for pid in family
        ]
        assert min(resident) // 2 < int(memory) < sum(resident) // 2
