"""Keys that come from where kagent.toml says, at the first signature, and go when unused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent.protocol.messages import SignRequest, encode
from kagent.protocol.publickey import parse_line
from tests.destinations.keys import A
from tests.destinations.requests import forward
from tests.support.frames import FAILURE, SUCCESS, answer, ask, explained
from tests.support.manual import block
from tests.support.programs import SECONDS, Agent, Person, agent, sshd, wait_until
from tests.support.tokens import PROVIDER

# Writes down what it is asked, and then does what the test wants.
ASKPASS = """\
#!/bin/sh
cd "${0%/*}"
echo "$1" >>asked
echo >>count
. ./behaviour
"""
PASSPHRASE = "correct horse"


class Home:
    """A person with an agent, keys with sources, and an ssh-askpass."""

    def __init__(self, person: Person, running: Agent) -> None:
        self.person, self.agent = person, running

    def answers(self, behaviour: str) -> None:
        """What ssh-askpass is to do from now on, in words of the shell."""
        self.person.file("behaviour", behaviour)

    @property
    def asked(self) -> int:
        """How often the user was."""
        counted = self.person.home / "count"
        return len(counted.read_text()) if counted.exists() else 0

    @property
    def question(self) -> str:
        """All that the user was asked."""
        return (self.person.home / "asked").read_text()

    def signs(self, key: Path) -> bool:
        """Whether the agent signs with it."""
        told = self.agent.run("ssh-add", "-T", f"{key}.pub", check=False)
        return told.returncode == 0

    def refusal(self, key: Path) -> str:
        """Why the agent doesn't sign with it."""
        with self.agent.connect() as stream:
            assert ask(stream, request(key)) == FAILURE
            return explained(stream)

    def listed(self) -> str:
        """What is listed, with where it lives."""
        return self.agent.run("kagent-add", "-l", "-v", check=False).stdout


def request(key: Path) -> bytes:
    """For a signature with it."""
    public, _ = parse_line(Path(f"{key}.pub").read_text())
    return encode(SignRequest(public.blob, b"data", 0))


def configure(person: Person, *entries: str) -> None:
    """Have these [[identity]] tables, and nothing else."""
    folder = person.home / ".config/kagent"
    if not folder.exists():
        person.run("mkdir", "-p", folder)
    person.file(".config/kagent/kagent.toml", "".join(f"[[identity]]\n{one}\n" for one in entries))


def entry(key: Path, *lines: str) -> str:
    """A table for a key file."""
    return "\n".join((f'public = "{key}.pub"', f'file = "{key}"', *lines))


@pytest.fixture
def home(person: Person) -> Iterator[Home]:
    with living(person) as home:
        yield home


@contextmanager
def living(person: Person, *options: str, **variables: str) -> Iterator[Home]:
    program = person.file("askpass", ASKPASS, mode=0o700)
    person.file("behaviour", f"echo '{PASSPHRASE}'")
    variables |= {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    with agent(person, "kagent", *options, env=variables) as running:
        yield Home(person, running)


def test_asked_for_once_at_the_first_use(home: Home, person: Person) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    assert "key käse (ED25519)" in home.listed(), home.agent.logged()
    assert f"custody file {key}" in home.listed()
    assert home.asked == 0
    assert home.signs(key)
    assert home.signs(key)
    assert home.asked == 1
    first, second, *told = home.question.splitlines()
    assert first == "Enter passphrase for key key käse"
    assert second.startswith("Key fingerprint SHA256:")
    assert any("Asked by ssh-add" in line for line in told)
    assert "custody sealed" in home.listed()


def test_an_entry_counts_at_once(home: Home, person: Person) -> None:
    """Also where a moment ago there was none, and where its key was looked for in vain."""
    key = person.key("key", passphrase=PASSPHRASE)
    assert not home.signs(key)
    configure(person, entry(key))
    assert home.signs(key)


def test_a_wrong_passphrase_is_a_failure_at_once(home: Home, person: Person) -> None:
    """And so is what comes within seconds of it: no program can have the user asked on and on."""
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    home.answers("echo wrong")
    assert home.refusal(key) == f"the passphrase for file {key} is wrong"
    home.answers(f"echo '{PASSPHRASE}'")
    assert home.refusal(key) == f"a moment ago: the passphrase for file {key} is wrong"
    assert home.asked == 1
    wait_until(lambda: home.signs(key))
    assert home.asked == 2


@pytest.mark.parametrize("behaviour", ["exit 1", "echo"])
def test_a_question_that_is_cancelled(home: Home, person: Person, behaviour: str) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    home.answers(behaviour)
    assert home.refusal(key).startswith(("the user said no", "no passphrase was given"))
    assert not home.signs(key)
    assert home.asked == 1
    assert f"custody file {key}" in home.listed()


def test_many_that_want_it_at_once_ask_once(home: Home, person: Person) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    home.answers(f"while ! [ -e yes ]; do sleep 0.05; done; echo '{PASSPHRASE}'")
    streams = [home.agent.connect() for _ in range(100)]
    for stream in streams:
        stream.sendall(request(key))
    wait_until(lambda: home.asked == 1)
    person.file("yes", "")
    assert FAILURE not in [answer(stream) for stream in streams]
    assert home.asked == 1
    for stream in streams:
        stream.close()


def test_a_locked_agent_asks_nothing(home: Home, person: Person) -> None:
    """Nor does it take what it has asked for when it was locked meanwhile."""
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    home.answers(f"while ! [ -e yes ]; do sleep 0.05; done; echo '{PASSPHRASE}'")
    lock = person.file("lock", "#!/bin/sh\necho secret\n", mode=0o700)
    with home.agent.connect() as stream:
        stream.sendall(request(key))
        wait_until(lambda: home.asked == 1)
        home.agent.run("ssh-add", "-x", SSH_ASKPASS=str(lock), SSH_ASKPASS_REQUIRE="force")
        person.file("yes", "")
        assert answer(stream) == FAILURE
        assert ask(stream, request(key)) == FAILURE
    assert home.asked == 1
    home.agent.run("ssh-add", "-X", SSH_ASKPASS=str(lock), SSH_ASKPASS_REQUIRE="force")
    assert f"custody file {key}" in home.listed()


def test_who_goes_away_takes_the_question_along(home: Home, person: Person) -> None:
    """And it is no refusal for who comes next."""
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    home.answers("echo $$ >pid; exec sleep 1000")
    with home.agent.connect() as stream:
        stream.sendall(request(key))
        wait_until(lambda: (person.home / "pid").exists() and (person.home / "pid").read_text())
    asking = int((person.home / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{asking}").exists())
    home.answers(f"echo '{PASSPHRASE}'")
    assert home.signs(key)


@pytest.mark.parametrize("source", [True, False], ids=["passphrase", "confirmation"])
def test_the_front_takes_its_questions_along(home: Home, person: Person, source: bool) -> None:
    """Whatever ssh-askpass has started, and who has asked doesn't wait for it."""
    key = person.key("key", passphrase=PASSPHRASE if source else "")
    configure(person, *([entry(key)] if source else []))
    if not source:
        home.agent.run("ssh-add", "-q", "-c", key)
    home.answers("sleep 1000 & echo $! >pid; wait")
    with home.agent.connect() as stream:
        stream.sendall(request(key))
        wait_until(lambda: (person.home / "pid").exists() and (person.home / "pid").read_text())
        window = int((person.home / "pid").read_text())
        os.kill(home.agent.front, signal.SIGKILL)
        assert answer(stream) == b""
    wait_until(lambda: not Path(f"/proc/{window}").exists())


def test_an_entry_that_is_taken_away_while_the_user_is_asked(home: Home, person: Person) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    home.answers(f": >.config/kagent/kagent.toml; echo '{PASSPHRASE}'")
    assert home.refusal(key) == "its [[identity]] was taken away meanwhile"


def test_an_entry_that_is_changed_while_its_command_runs(home: Home, person: Person) -> None:
    """What it says when the key comes is what holds."""
    key = person.key("key")
    give = person.file("give", f"#!/bin/sh\n. {person.home}/first\ncat {key}\n", mode=0o700)
    source = f'public = "{key}.pub"\ncommand = ["{give}"]\n'
    configure(person, source)
    change = f"echo 'confirm = \"always\"' >>{person.home}/.config/kagent/kagent.toml"
    person.file("first", change)
    assert home.refusal(key) == "its [[identity]] was changed meanwhile"
    person.file("first", "")
    home.answers("exit 0")
    wait_until(lambda: home.signs(key))
    assert home.question.startswith("Allow use of key")


def test_a_key_that_is_loaded_while_the_user_is_asked(home: Home, person: Person) -> None:
    """It stays as it was loaded, and the signature is one with that."""
    key, open_one = person.key("key", passphrase=PASSPHRASE), person.home / "open"
    person.run("cp", key, open_one)
    person.run("ssh-keygen", "-q", "-p", "-P", PASSPHRASE, "-N", "", "-f", open_one)
    configure(person, entry(key))
    home.answers(f"while ! [ -e yes ]; do sleep 0.05; done; echo '{PASSPHRASE}'")
    with home.agent.connect() as stream:
        stream.sendall(request(key))
        wait_until(lambda: home.asked == 1)
        home.agent.run("ssh-add", "-q", "-c", open_one)
        home.answers("exit 1")
        person.file("yes", "")
        assert answer(stream) == FAILURE
    assert home.asked == 2
    assert "Allow use of key" in home.question
    assert "custody sealed" in home.listed()
    assert not home.signs(key)


def test_the_key_must_be_the_one_that_is_named(home: Home, person: Person) -> None:
    key, other = person.key("key"), person.key("other")
    configure(person, f'public = "{key}.pub"\nfile = "{other}"')
    assert home.refusal(key) == f"file {other} gives another key than [[identity]] says"
    assert home.asked == 0


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "rsa", "-b", "2048", "-m", "PEM"),
        ("-t", "rsa", "-b", "2048", "-m", "PKCS8"),
        ("-t", "ecdsa", "-m", "PKCS8"),
        ("-t", "ecdsa", "-Z", "chacha20-poly1305@openssh.com"),
        ("-t", "ed25519", "-Z", "3des-cbc"),
    ],
    ids=" ".join,
)
def test_forms_of_key_files(home: Home, person: Person, options: tuple[str, ...]) -> None:
    """Who opens them can import nothing."""
    key = person.key("key", *options, passphrase=PASSPHRASE)
    configure(person, entry(key))
    assert home.signs(key), home.agent.logged()
    assert home.asked == 1


def test_a_key_without_a_passphrase(home: Home, person: Person) -> None:
    key = person.key("key")
    configure(person, entry(key))
    assert home.signs(key)
    assert home.asked == 0


def test_files_that_are_not_taken(home: Home, person: Person) -> None:
    key = person.key("key")
    public = (person.home / "key.pub").read_text().strip()
    for name, prepare, why in (
        ("open", lambda path: path.chmod(0o640), "others can read it: chmod go="),
        ("pipe", lambda path: (path.unlink(), os.mkfifo(path)), "not a file"),
        ("gone", Path.unlink, "No such file or directory"),
        ("long", lambda path: path.write_bytes(bytes(100_000)), "longer than 65536 bytes"),
        ("none", lambda path: path.write_text("nothing"), "invalid format"),
    ):
        path = person.file(name, key)
        prepare(path)
        configure(person, f'public = "{public}"\nfile = "{path}"')
        wait_until(lambda: "a moment ago" not in (told := home.refusal(key)) and why in told)  # noqa: B023


def test_what_to_do_where_none_comes(home: Home, person: Person) -> None:
    """By what went wrong: each has a cause of its own, and so a step."""
    names = ("wrong", "none", "open", "gone", "damaged", "ends", "missing")
    keys = {name: person.key(name, passphrase=PASSPHRASE) for name in names}
    keys["open"].chmod(0o644)
    keys["gone"].unlink()
    keys["damaged"].write_text("nothing")
    commands = {"ends": "false", "missing": "/nowhere/give"}
    tables = [
        f'public = "{key}.pub"\ncommand = ["{commands[name]}"]'
        if name in commands
        else entry(key, *(['passphrase = ["true"]'] if name == "none" else []))
        for name, key in keys.items()
    ]
    configure(person, *tables)
    home.answers("echo wrong")
    found = {}
    for name, key in keys.items():
        assert not home.signs(key)
        told = json.loads(home.agent.run("kagentctl", "why", "--json").stdout)["refusals"][-1]
        found[name] = (told["cause"], told["next"]["command"])
    with home.agent.connect() as stream:
        assert ask(stream, forward(A)) == SUCCESS
        assert ask(stream, request(keys["none"])) == FAILURE
    told = json.loads(home.agent.run("kagentctl", "why", "--json").stdout)["refusals"][-1]
    found["forwarded"] = (told["cause"], told["next"]["command"])
    wrong = ("source-passphrase", "ssh-keygen -y -f KEYFILE")
    assert found == {
        "wrong": wrong,
        "none": wrong,
        "open": ("source-open", "chmod go= KEYFILE"),
        "gone": ("source-file", "kagentctl check"),
        "damaged": ("invalid-key", "ssh-keygen -y -f KEYFILE"),
        "ends": ("source-command", "kagentctl check"),
        "missing": ("source-command", "kagentctl check"),
        "forwarded": ("source-forwarded", "ssh-add KEYFILE"),
    }
    lines = home.agent.run("kagentctl", "check").stdout.splitlines()
    warnings = {line.split(": warning: ")[1] for line in lines if "warning" in line}
    assert warnings == {
        f"file: {keys['open']}: others can read it: chmod go= {keys['open']}",
        f"file: {keys['gone']}: No such file or directory",
        "command: /nowhere/give: no such command",
    }


def test_who_can_not_be_asked_is_told_before(home: Home, person: Person) -> None:
    """By remember, and by doctor once it is configured."""
    key, plain = person.key("key", passphrase=PASSPHRASE), person.key("plain")
    no_window = {"SSH_ASKPASS_REQUIRE": ""}
    no_program = {"SSH_ASKPASS": "/nowhere/askpass"}
    told = home.agent.run("kagentctl", "remember", plain, **no_window)
    assert told.stderr == ""
    assert "questions: kagent.toml has none asked\n" in doctor(home, **no_window)
    told = home.agent.run("kagentctl", "remember", key, **no_window)
    assert "a passphrase can't be asked for yet: no window can be opened. Next:\n" in told.stderr
    assert 'eval "$(kagent -s)"\n' in told.stderr
    assert "and no window can be opened\n" in doctor(home, **no_window)
    assert "and /nowhere/askpass is not there\n" in doctor(home, **no_program)
    assert "questions: they can be asked\n" in doctor(home)


def doctor(home: Home, **variables: str) -> str:
    """What it prints."""
    asking = {"SSH_ASKPASS": str(home.person.home / "askpass"), "SSH_ASKPASS_REQUIRE": "force"}
    return home.agent.run("kagentctl", "doctor", check=False, **{**asking, **variables}).stdout


def test_unused_it_goes(home: Home, person: Person) -> None:
    """Each use puts its end off, but never beyond its lifetime; then the next use asks again."""
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key, 'idle = "5s"', 'lifetime = "12s"'))
    began = time.monotonic()
    with home.agent.connect() as stream:
        while home.asked < 2:
            if ask(stream, request(key)) == FAILURE:  # it has ended just then
                assert "its time is over" in explained(stream)
            assert time.monotonic() < began + 12 + SECONDS
            time.sleep(0.2)
    assert time.monotonic() > began + 11
    assert "removed when not used for 00:00:05" in home.listed()
    wait_until(lambda: "custody sealed" not in home.listed())


def test_a_key_that_is_loaded_by_hand_goes_unused_too(home: Home, person: Person) -> None:
    key = person.key("key")
    told = home.agent.run("kagent-add", "--idle", "3s", key).stderr
    assert "The key is removed when it is not used for 00:00:03" in told
    assert "removed when not used for" in home.listed()
    wait_until(lambda: "custody" not in home.listed())


def test_what_a_command_gives(home: Home, person: Person) -> None:
    """It has no descriptor, no keyring and no agent, and a short environment."""
    key = person.key("key", passphrase=PASSPHRASE)
    look = "ls -l /proc/self/fd; keyctl show @s; env"
    give = person.file("give", f"#!/bin/sh\n({look}) >{person.home}/seen\ncat {key}\n", mode=0o700)
    word = person.file("word", f"#!/bin/sh\necho '{PASSPHRASE}'\n", mode=0o700)
    source = (f'command = ["{give}"]', f'passphrase = ["{word}"]', 'confirm = "always"')
    configure(person, "\n".join((f'public = "{key}.pub"', *source)))
    assert f"custody command {give}" in home.listed()
    home.answers("exit 0")
    assert home.signs(key)
    assert home.question.startswith("Allow use of key")
    seen = (person.home / "seen").read_text()
    assert "SSH_AUTH_SOCK" not in seen
    assert "SSH_ASKPASS" not in seen
    assert len(re.findall("(?:keyring|user|asymmetric): ", seen)) == 1  # itself
    assert "socket:" not in seen.replace("1 -> socket:", "")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "ended with 3; try it by hand"),
        ("yes", "gives more than"),
        ("true", "command sh: invalid format"),
    ],
)
def test_a_command_that_gives_no_key(home: Home, person: Person, command: str, why: str) -> None:
    key = person.key("key")
    configure(person, f'public = "{key}.pub"\ncommand = ["sh", "-c", "{command}"]')
    assert why in home.refusal(key)


def test_a_key_that_is_removed_stays_listed(home: Home, person: Person) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    assert home.signs(key)
    home.agent.run("ssh-add", "-d", key)
    assert f"custody file {key}" in home.listed()
    told = home.agent.run("kagent-add", "-d", key, check=False).stderr
    assert "kagentctl forget-source" in told
    assert home.signs(key)
    assert home.asked == 2


def test_remember_and_forget(home: Home, person: Person) -> None:
    """As the manual has it: from then on ssh just works, and asks once."""
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person)
    file = person.file(".config/kagent/kagent.toml", "# mine\nburst = 50\n", mode=0o640)
    told = home.agent.run("kagentctl", "remember", key, "--idle", "30m").stdout
    assert "is fetched at its first use, and its passphrase asked for" in told
    assert file.read_text().startswith("# mine\nburst = 50\n\n[[identity]]\n")
    assert file.stat().st_mode & 0o777 == 0o640
    assert home.agent.run("kagentctl", "check").returncode == 0
    again = home.agent.run("kagentctl", "remember", key, check=False)
    assert (
        again.returncode,
        "has a source already; to change it: kagentctl forget-source" in (again.stderr),
    ) == (1, True)
    public = home.agent.run("kagentctl", "remember", f"{key}.pub", check=False)
    assert public.stderr == f"kagentctl: {key}.pub is a public key; its private half: {key}\n"
    assert home.signs(key)
    assert home.asked == 1
    home.agent.run("kagentctl", "forget-source", key)
    assert file.read_text() == "# mine\nburst = 50\n"
    home.agent.run("ssh-add", "-D")
    assert "no identities" in home.listed()
    missing = home.agent.run("kagentctl", "forget-source", key, check=False)
    assert (missing.returncode, "has no key" in missing.stderr) == (1, True)


def test_what_can_not_be_remembered(home: Home, person: Person) -> None:
    """It is said at once, and nothing is written."""
    key, other = person.key("key"), person.key("other", passphrase=PASSPHRASE)
    person.file("other.pub", Path(f"{key}.pub"))
    configure(person)
    file = person.home / ".config/kagent/kagent.toml"

    def refused(path: Path) -> str:
        before = file.read_bytes() if file.is_file() else b""
        told = person.run("kagentctl", "remember", path, check=False)
        assert told.returncode == 1
        assert before == (file.read_bytes() if file.is_file() else b"")
        return told.stderr

    assert "is another key's" in refused(other)
    odd = person.file(os.fsdecode(b"k\xff"), key)
    told = person.run("sh", "-c", 'kagentctl remember "$1" 2>&1 | LC_ALL=C tr -d "\\377"', "", odd)
    assert "/k: its name isn't UTF-8" in told.stdout
    file.chmod(0o666)  # kagent takes none of it
    assert f"others can write to it: chmod go-w {file}" in refused(key)
    file.unlink()
    os.mkfifo(file)
    assert "not a file" in refused(key)


def test_a_comment_that_is_not_utf_8(home: Home, person: Person) -> None:
    key = person.key("key")
    line = Path(f"{key}.pub").read_bytes().split()
    person.file("key.pub", b" ".join(line[:2]) + b" k\xe4se")
    configure(person)
    home.agent.run("kagentctl", "remember", key)
    assert home.signs(key)


def test_forget_leaves_what_else_is_said_of_a_key(home: Home, person: Person) -> None:
    key, other = person.key("key"), person.key("other")
    hosts = 'hosts = [ # where\n  "*.example.org",\n]'
    configure(person, entry(key, hosts, "lifetime = 60"), f"# the other\n{entry(other)}")
    home.agent.run("kagentctl", "forget-source", f"{key}.pub")
    file = person.home / ".config/kagent/kagent.toml"
    text = file.read_text()
    public = 'public = "{}.pub"'
    assert text == (
        f"[[identity]]\n{public.format(key)}\n{hosts}\n[[identity]]\n# the other\n{entry(other)}\n"
    )
    configure(person, f"{entry(other)}\n", entry(key))
    home.agent.run("kagentctl", "forget-source", other)
    assert file.read_text() == f"[[identity]]\n{entry(key)}\n"


def test_only_who_may_has_it_fetched_from_another_host(
    home: Home, person: Person, folder: Path
) -> None:
    """With sshd and a forwarded agent; what is listed there is what can be used."""
    key, door = person.key("key", passphrase=PASSPHRASE), person.key("door")
    authorized = (person.home / "door.pub").read_text()
    with sshd(person, folder / "sshd", authorized) as server:
        there = server.ssh(person, "-A", "-i", str(door), "-o", "IdentityAgent=none")
        there[there.index("IdentityAgent=none")] = "IdentitiesOnly=no"
        command = [*there, f"ssh-add -L; ssh-add -T {key}.pub"]
        configure(person, entry(key))
        told = home.agent.run(*command, check=False)
        assert (told.returncode, home.asked) == (1, 0)
        assert "no identities" in told.stdout
        configure(person, entry(key, "forwarded = true"))
        told = home.agent.run(*command)
        assert "key käse" in told.stdout
        assert home.asked == 1
        assert "FORWARDED: the request comes from" in home.question


def test_another_host_is_not_told_what_there_is(home: Home, person: Person) -> None:
    """A key that it may not have fetched is for it as one that never was; the log knows better."""
    key, none = person.key("key"), person.key("none")
    configure(person, entry(key))
    with home.agent.connect() as stream:
        assert ask(stream, forward(A)) == SUCCESS
        for one in (key, none):
            assert ask(stream, request(one)) == FAILURE
            assert explained(stream) == "no such key"
    assert "it isn't fetched for a forwarded request" in home.agent.logged()


def test_a_no_to_another_host_is_none_to_who_asks_here(home: Home, person: Person) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key, "forwarded = true"))
    home.answers("while ! [ -e no ]; do sleep 0.05; done; exit 1")
    with home.agent.connect() as there, home.agent.connect() as here:
        assert ask(there, forward(A)) == SUCCESS
        there.sendall(request(key))
        wait_until(lambda: home.asked == 1)
        here.sendall(request(key))
        time.sleep(0.3)
        home.answers(f"echo '{PASSPHRASE}'")
        person.file("no", "")
        assert answer(there) == FAILURE
        assert answer(here) != FAILURE
        assert explained(there) == "its source gives no key"
    assert home.asked == 2


def test_a_login(home: Home, person: Person, folder: Path) -> None:
    key = person.key("key", passphrase=PASSPHRASE)
    configure(person, entry(key))
    with sshd(person, folder / "sshd", (person.home / "key.pub").read_text()) as server:
        for _ in range(2):
            home.agent.run(*server.ssh(person), "true")
    assert home.asked == 1
    assert f'Login as "{person.name}" on ' in home.question
    assert "Asked by ssh" in home.question


def test_the_manuals_first_example(home: Home, person: Person) -> None:
    person.run("mkdir", "-m", "700", "-p", ".ssh")
    key = person.key(".ssh/id_ed25519", passphrase=PASSPHRASE, comment="me@home")
    remember = block("kagent.toml.5", "kagentctl remember ~/")
    forget = block("kagent.toml.5", "kagentctl forget-source")
    told = home.agent.run("sh", "-euc", remember).stdout
    assert "me@home (ED25519)" in told
    assert home.signs(key)
    assert home.asked == 1
    home.agent.run("sh", "-euc", f"{forget}\nssh-add -D")
    assert not home.signs(key)


def test_a_passphrase_from_pass(person: Person) -> None:
    """The manual's example, with a GnuPG key that asks nothing."""
    gnupg = person.home / ".gnupg"
    gnupg.mkdir(mode=0o700)
    os.chown(gnupg, person.uid, person.gid)
    make = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "me"]
    try:
        person.run(*make)
        person.run("pass", "init", "me")
        person.run("pass", "insert", "-m", "ssh/id_ed25519", input=f"{PASSPHRASE}\nand more\n")
        person.run("mkdir", "-m", "700", "-p", ".ssh")
        key = person.key(".ssh/id_ed25519", passphrase=PASSPHRASE)
        with living(person) as home:
            configure(person)
            written = block("kagent.toml.5", '[[identity]]\npublic = "~/.ssh/id_ed25519.pub"')
            person.file(".config/kagent/kagent.toml", written)
            assert home.signs(key), home.agent.logged()
            assert home.asked == 0
    finally:
        person.run("gpgconf", "--kill", "all")


# A private bus with gnome-keyring, and in it the key; the bus ends with the shell.
KEYRING = """\
printf '\\n' | gnome-keyring-daemon --unlock --components=secrets >/dev/null
secret-tool store --label=work ssh work <.ssh/work
exec kagent -D -a "$PWD/agent.sock"
"""


def test_a_key_from_the_keyring_of_the_desktop(person: Person) -> None:
    """The manual's example, with gnome-keyring on a bus of its own."""
    person.run("mkdir", "-m", "700", "-p", ".ssh", "run")
    key = person.key(".ssh/work")
    configure(person)
    written = block("kagent.toml.5", '[[identity]]\npublic = "~/.ssh/work.pub"')
    person.file(".config/kagent/kagent.toml", written)
    path, runtime = person.home / "agent.sock", {"XDG_RUNTIME_DIR": str(person.home / "run")}
    command = ("dbus-run-session", "--", "sh", "-euc", KEYRING)
    with person.start(*command, env=runtime, stderr=subprocess.PIPE, start_new_session=True) as bus:
        try:
            wait_until(lambda: path.exists() or bus.poll() is not None)
            assert bus.poll() is None, bus.stderr and bus.stderr.read()
            told = person.run("ssh-add", "-T", f"{key}.pub", check=False, SSH_AUTH_SOCK=str(path))
            assert told.returncode == 0, told.stderr
        finally:
            os.killpg(bus.pid, signal.SIGTERM)
            bus.wait(SECONDS)


@pytest.mark.parametrize("kind", ["ed25519-sk", "ecdsa-sk"])
def test_a_fido_key(person: Person, kind: str) -> None:
    """What its file has is a handle: it is fetched like a key, and its token signs."""
    key = person.home / "id_sk"
    words = ["-t", kind, "-w", PROVIDER, "-N", PASSPHRASE, "-C", "my token", "-f", key]
    person.run("ssh-keygen", "-q", *words)
    with living(person, f"-P{PROVIDER}", SSH_SK_PROVIDER=PROVIDER) as home:
        home.agent.run("kagentctl", "remember", key)
        assert f"custody file {key}" in home.listed()
        assert home.signs(key)
        assert home.asked == 2, home.question  # its passphrase, and to touch the token
        assert "custody device" in home.listed()
        assert home.signs(key)
        assert home.question.count("Enter passphrase") == 1
        home.agent.run("ssh-add", "-D")
        assert f"custody file {key}" in home.listed()


def test_a_fido_key_of_a_library_that_may_not_be_loaded(person: Person) -> None:
    key = person.home / "id_sk"
    words = ["-t", "ed25519-sk", "-w", PROVIDER, "-N", "", "-f", key]
    person.run("ssh-keygen", "-q", *words)
    with living(person, "-P/nowhere/*", SSH_SK_PROVIDER=PROVIDER) as home:
        home.agent.run("kagentctl", "remember", key)
        assert PROVIDER in home.refusal(key)
        assert f"custody file {key}" in home.listed()
