"""kagent's command line beside ssh-agent's."""

from __future__ import annotations

import compileall
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kagent
from tests.hostile.asking import Client, Pair
from tests.machine.openssh import programs
from tests.support.programs import Person, agent, background, is_running, variables, wait_until

BOTH = ("ssh-agent", "kagent")
Said = tuple[int, str, str]


def said(result: subprocess.CompletedProcess[str]) -> Said:
    """How a program ended and what it wrote, without what is never the same."""
    out, err = (
        re.sub(r"\b\d{2,}\b", "PID", text.replace("ssh-agent", "kagent"))
        for text in (result.stdout, result.stderr)
    )
    return result.returncode, out, err


@pytest.mark.parametrize("options", [["-s"], ["-c"], []])
@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/tcsh"])
def test_the_shells_words(person: Person, options: list[str], shell: str) -> None:
    """Byte for byte, since scripts parse them; for starting and for ending."""
    told: list[list[Said]] = []
    for program in BOTH:
        words = [*options, "-a", person.home / "socket"]
        with background(person, program, *words, SHELL=shell) as out:
            found = variables(out)
            assert found["SSH_AUTH_SOCK"] == str(person.home / "socket")
            listed = person.run("ssh-add", "-l", check=False, **found)
            killed = person.run(program, *options, "-k", SHELL=shell, **found)
            told.append([said(subprocess.CompletedProcess([], 0, out, "")), said(killed)])
            assert "no identities" in listed.stdout
            assert listed.returncode == 1
            wait_until(lambda: not (person.home / "socket").exists())
    assert told[0] == told[1]


@pytest.mark.parametrize("option", ["-s", "-c"])
@pytest.mark.parametrize("name", ["a path", "a 'quoted' path", 'a "quoted" path', "$HOME"])
def test_a_path_that_needs_quotes(person: Person, name: str, option: str) -> None:
    with background(person, "kagent", option, "-a", person.home / name, SHELL="") as out:
        sh = out if option == "-s" else re.sub(r"setenv (\w+) ", r"\1=", out)
        shown = person.run("sh", "-c", f'{sh} printf %s "$SSH_AUTH_SOCK"').stdout
        assert shown.splitlines()[-1] == str(person.home / name)


@pytest.mark.parametrize("pid", [None, "", "x", "0", "1", "-5", "99999999999", "4194304", "12x"])
def test_kill_without_an_agent(person: Person, pid: str | None) -> None:
    env = {} if pid is None else {"SSH_AGENT_PID": pid}
    theirs, ours = (person.run(program, "-k", check=False, **env) for program in BOTH)
    assert said(ours) == said(theirs)


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", "exit 7"],
        ["sh", "-c", "kill -9 $$"],
        ["sh", "-c", "ssh-add -l"],
        ["echo", "-s"],
    ],
)
def test_a_command_of_its_own(person: Person, words: list[str]) -> None:
    """The exit code is the command's, and kagent ends when the command does."""
    told = []
    path = person.home / "socket"
    wrapper = ["sh", "-c", 'echo $SSH_AGENT_PID >pid; echo $SSH_AUTH_SOCK; exec "$@"', "sh"]
    for program in BOTH:
        told.append(said(person.run(program, "-a", path, *wrapper, *words, check=False)))
        pid = int((person.home / "pid").read_text())
        if program == "ssh-agent":
            os.kill(pid, signal.SIGTERM)  # it would look for its command every ten seconds only
        wait_until(lambda pid=pid: not is_running(pid) and not path.exists())
    assert told[0] == told[1]


def test_a_command_that_is_not_there(person: Person) -> None:
    path = person.home / "socket"
    result = person.run("kagent", "-a", path, "no-such-program", check=False)
    assert said(result) == (1, "", "no-such-program: No such file or directory\n")
    wait_until(lambda: not path.exists())


@pytest.mark.parametrize("words", [["-s", "-c"], ["-d", "-D"], ["-s", "true"], ["-k", "true"]])
def test_options_that_do_not_go_together(person: Person, words: list[str]) -> None:
    theirs, ours = (person.run(program, *words, check=False) for program in BOTH)
    assert theirs.returncode == ours.returncode == 1
    assert theirs.stderr.startswith("usage:")
    assert ours.stderr.startswith("usage:")


def test_unknown_option(person: Person) -> None:
    theirs, ours = (person.run(program, "-Z", check=False) for program in BOTH)
    assert ours.stderr.splitlines()[0] == theirs.stderr.splitlines()[0]
    assert ours.returncode == theirs.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_foreground_ends_on_a_signal(person: Person, number: int) -> None:
    codes = []
    for program in BOTH:
        with agent(person, program) as running:
            running.process.send_signal(number)
            codes.append(running.process.wait(10))
            assert not running.socket.exists()
    assert codes[0] == codes[1] == 2


def test_a_signal_beside_the_end_of_a_child(person: Person) -> None:
    """Neither hides the other."""
    with agent(person) as kagent:
        front = kagent.front
        os.kill(kagent.keeper, signal.SIGSTOP)
        os.kill(front, signal.SIGKILL)
        wait_until(lambda: not is_running(front))
        kagent.process.send_signal(signal.SIGTERM)
        os.kill(kagent.keeper, signal.SIGCONT)
        assert kagent.process.wait(10) == 2


def test_foreground_says_where_it_is(person: Person) -> None:
    told = []
    for program in BOTH:
        path = person.home / f"{program}.socket"
        with person.start(program, "-D", "-s", "-a", path, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                told.append([process.stdout.readline(), process.stdout.readline()])
                assert re.search(rf"\b{process.pid}\b", told[-1][1])
                told[-1][1] = re.sub(r"\d+", "PID", told[-1][1])
            finally:
                process.terminate()
    assert told[1] == [line.replace("ssh-agent", "kagent") for line in told[0]]


def test_a_socket_in_use_is_left_alone(person: Person) -> None:
    with agent(person) as first:
        second = person.run("kagent", "-D", "-a", first.socket, check=False)
        assert second.returncode == 1
        assert "Address already in use; a program listens there already: " in second.stderr
        assert f"SSH_AUTH_SOCK={first.socket} " in second.stderr
        assert first.run("ssh-add", "-l", check=False).returncode == 1


def test_a_socket_that_another_has_made_since_stays(person: Person) -> None:
    """Where somebody took the first's away: its end is not to take the second's."""
    path = person.home / "agent.sock"
    with background(person, "kagent", "-s", "-a", path) as first:
        path.unlink()
        with background(person, "kagent", "-s", "-a", path):
            pid = int(variables(first)["SSH_AGENT_PID"])
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not is_running(pid))
            listed = person.run("ssh-add", "-l", check=False, SSH_AUTH_SOCK=str(path))
            assert listed.stdout == "The agent has no identities.\n"
    assert not path.exists()


def test_default_socket(person: Person) -> None:
    """As OpenSSH 10.6: under ~/.ssh/agent, for this user only."""
    with background(person, "kagent", "-s") as out:
        path = Path(variables(out)["SSH_AUTH_SOCK"])
        assert path.parent == person.home / ".ssh/agent"
        assert re.fullmatch(r"s\.[a-zA-Z0-9]{10}\.local\.\d+\.[a-zA-Z0-9]{10}", path.name)
        assert stat.filemode(path.stat().st_mode) == "srw-------"
        assert stat.filemode(path.parent.stat().st_mode) == "drwx------"
    wait_until(lambda: not path.exists())


def test_socket_in_tmp(person: Person, folder: Path) -> None:
    """-T, as all agents did before."""
    temporary = folder / "tmp"
    temporary.mkdir()
    os.chown(temporary, person.uid, person.gid)
    with background(person, "kagent", "-s", "-T", TMPDIR=str(temporary)) as out:
        path = Path(variables(out)["SSH_AUTH_SOCK"])
        assert re.fullmatch(rf"{temporary}/ssh-[a-zA-Z0-9]{{12}}/agent\.local\.\d+", str(path))
        assert stat.filemode(path.parent.stat().st_mode) == "drwx------"
    wait_until(lambda: not list(temporary.iterdir()))


NAME = re.compile(r"(?<=ssh-)\w+|\w{10}$|\b\d+\b")  # what is another each time


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("user:one/two", "one/two"),
        ("user:%u-%U/%%h", "USER-UID/%h"),
        ("user:%h/three", "three"),
        ("user:HOME/four", "four"),
        ("shared:HOME", "ssh-RANDOM"),
    ],
)
def test_in_a_directory(person: Person, place: str, found: str) -> None:
    """-A, as OpenSSH 10.6: of the user's own, or in one that is shared."""
    words = ("-s", "-A", place.replace("HOME", str(person.home)))
    found = found.replace("USER", person.name).replace("UID", str(person.uid))
    paths = []
    for program in (programs() / "ssh-agent", "kagent"):
        with background(person, program, *words) as out:
            path = Path(variables(out)["SSH_AUTH_SOCK"])
            assert stat.filemode(path.stat().st_mode) == "srw-------"
            assert stat.filemode(path.parent.stat().st_mode) == "drwx------"
            paths.append(path.relative_to(person.home))
            # ssh-agent names its socket before it minds signals, and answers only after.
            person.run("ssh-add", "-l", check=False, SSH_AUTH_SOCK=str(path))
        wait_until(lambda path=path: not path.exists())  # type: ignore[misc]
    theirs, ours = (NAME.sub("RANDOM", str(path)) for path in paths)
    assert ours == theirs
    assert ours.startswith(NAME.sub("RANDOM", found))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-A", "one"], "kagent: -A takes user:DIRECTORY or shared:DIRECTORY, not 'one'\n"),
        (["-A", "shared:one"], "kagent: -A shared: takes an absolute path, not 'one'\n"),
        (["-A", "user:%z"], "kagent: -A: unknown %z; it takes %h, %u, %U and %%\n"),
        (["-A", "user:one", "-T"], "usage: "),
        (["-A", "user:one", "-a", "two"], "usage: "),
        (["-a", "two", "-T"], "usage: "),
    ],
)
def test_places_that_make_no_sense(person: Person, words: list[str], told: str) -> None:
    theirs, ours = (
        person.run(program, *words, check=False) for program in (programs() / "ssh-agent", "kagent")
    )
    assert ours.returncode == theirs.returncode
    assert ours.stderr.startswith(told)


def test_what_is_where_the_socket_should_be(person: Person) -> None:
    """It is told, with what to do; nothing of it is touched."""
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(person.home / "old"))
    (person.home / "old").chmod(0o777)
    person.file("file", "")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(str(person.home / "full"))
        full.listen(0)
        waiting.connect(str(person.home / "full"))
        for name, told in (
            ("old", "nobody listens there any more: rm old"),
            ("file", "that is another file"),
            ("full", "a program listens there already"),
        ):
            started = person.run("kagent", "-a", name, "true", check=False)
            assert started.returncode == 1
            assert f"cannot bind to {name}: Address already in use; {told}" in started.stderr
            assert (person.home / name).exists()


def test_no_path_for_the_socket(person: Person) -> None:
    """As a variable that isn't set gives: nobody would ever find that agent."""
    started = person.run("kagent", "-a", "", "true", check=False)
    assert (started.returncode, started.stderr) == (
        1,
        "kagent: -a takes the path of the socket that is to be made, not ''\n",
    )


def test_stale_sockets(person: Person) -> None:
    """An hour after their agents are gone, the next start removes them; never one in use."""
    with background(person, "kagent", "-s") as out:
        alive = Path(variables(out)["SSH_AUTH_SOCK"])
        old, young = (alive.with_name(f"{alive.name[:-10]}{letter * 10}") for letter in "oy")
        for path in (old, young):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        for path in (alive, old):
            os.utime(path, (time.time() - 4000,) * 2)
        assert person.run("kagent", "-u").stdout == "Deleted stale agent sockets in ~/.ssh/agent\n"
        assert set(alive.parent.iterdir()) == {alive, young}


@pytest.mark.parametrize("words", [["-t", "x"], ["-E", "sha3"], ["-t", ""]])
def test_values_that_make_no_sense(person: Person, words: list[str]) -> None:
    theirs, ours = (person.run(program, *words, check=False) for program in BOTH)
    assert ours.returncode == theirs.returncode
    assert ours.stderr.splitlines()[0] == theirs.stderr.splitlines()[0].rstrip("\r")
    assert not (person.home / ".ssh").exists()


@pytest.mark.parametrize("most", [0, 1024])
def test_where_files_may_not_grow(person: Person, most: int) -> None:
    """What is held lies in such as have no name."""
    limited = ("prlimit", f"--fsize={most}:{most}", "kagent", "-s", "-a", person.home / "socket")
    # Else Python would do so with these limits, and leave halves that nobody can import.
    assert compileall.compile_dir(Path(kagent.__file__).parent, quiet=1)
    told = person.run(*limited, check=False)
    assert told.returncode == 1
    assert "ulimit -f 1024" in told.stderr
    assert not (person.home / "socket").exists()


@contextmanager
def lowered(pid: int, most: int) -> Iterator[None]:
    """Meanwhile that process may open so many descriptors."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, limits[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("most", [0, 3, 8])
def test_descriptors_taken_away(person: Person, most: int) -> None:
    """By any program of the user, when the agent has just started, and when it has a key.

    It goes on, and works when it has them again; a key that it had is still there.
    """
    first, second = (person.key(name) for name in ("first", "second"))
    with background(person, "kagent", "-s") as out:
        found = variables(out)
        pid = int(found["SSH_AGENT_PID"])
        for key in first, second:
            with lowered(pid, most):
                person.run("ssh-add", "-q", key, check=False, **found)
                time.sleep(0.2)  # until it would get ready for keys
                assert is_running(pid)
            person.run("ssh-add", "-q", key, **found)
        person.run("ssh-add", "-T", f"{first}.pub", f"{second}.pub", **found)


def test_what_cannot_wait_is_not_started_over_and_over(person: Person) -> None:
    """As a lookout without a descriptor: poll(2) refuses it."""
    pair = Pair.new()
    with agent(person) as running, Client(running.socket) as client:
        assert client.add(pair)
        with lowered(running.keeper, 0):
            for lookout in running.lookouts:
                os.kill(lookout, signal.SIGKILL)
            with Client(running.socket) as another:
                another.signs(pair)
            time.sleep(0.5)
        assert "who asks can't be told" in running.logged()
        assert running.logged().count("who asks can't be told") < 10
        wait_until(lambda: client.signs(pair))
