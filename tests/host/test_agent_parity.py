"""kagent beside ssh-agent: the same requests of stock ssh-add, the same answers."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kagent.protocol.messages import (
    SESSION_BIND,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    Lock,
    RequestIdentities,
    SignRequest,
    Unlock,
    decode,
    encode,
)
from kagent.protocol.publickey import parse_line
from tests.destinations.keys import A
from tests.destinations.requests import forward
from tests.machine.openssh import programs
from tests.support.frames import FAILURE, LISTING, NOTHING, SUCCESS, ask, explained
from tests.support.programs import Agent, Person, agent, wait_until
from tests.support.softhsm import LIBRARY, PIN

NEWEST = programs() / "ssh-agent"
Said = tuple[int, str, str]
Same = Callable[..., Said]

ASKPASS = """\
#!/bin/sh
printf '%s\\n' "$1" >>asked
exit $(cat answer)
"""


@pytest.fixture
def agents(person: Person) -> Iterator[tuple[Agent, Agent]]:
    person.file("askpass", ASKPASS, mode=0o700)
    person.file("answer", "0")
    env = {"SSH_ASKPASS": "./askpass", "SSH_ASKPASS_REQUIRE": "force"}
    with agent(person, "ssh-agent", env=env) as one, agent(person, env=env) as other:
        yield one, other


@pytest.fixture
def same(agents: tuple[Agent, Agent]) -> Same:
    """Runs a command with either agent; they must say and end the same."""

    def run(*words: str, **options: str) -> Said:
        theirs, ours = (
            (done.returncode, done.stdout, done.stderr)
            for done in (one.run(*words, check=False, **options) for one in agents)
        )
        assert ours == theirs
        return ours

    return run


def certified(person: Person, name: str, *options: str) -> Path:
    """A key with a certificate beside it."""
    path = person.key(name, *options)
    if not (person.home / "authority").exists():
        person.key("authority")
    words = ("-s", "authority", "-I", "me", "-n", person.name, "-V", "+1h")
    person.run("ssh-keygen", "-q", *words, f"{name}.pub")
    return path


# Seconds: on a busy machine, two programs take a while.
LIFETIME = "5"


def test_lifetime(same: Same, agents: tuple[Agent, Agent], person: Person) -> None:
    person.key("one")
    person.key("two")
    same("ssh-add", "-t", LIFETIME, "one")
    same("ssh-add", "two")
    assert "one" in same("ssh-add", "-l")[1]
    assert same("ssh-add", "-T", "one.pub")[0] == 0
    for each in agents:
        wait_until(lambda each=each: "one" not in each.run("ssh-add", "-l").stdout)
    assert same("ssh-add", "-T", "one.pub")[0] == 1
    # Loaded again without one, it stays.
    same("ssh-add", "-t", LIFETIME, "two")
    same("ssh-add", "two")
    time.sleep(int(LIFETIME) + 0.5)
    assert "two" in same("ssh-add", "-l")[1]


def test_default_lifetime(person: Person) -> None:
    person.key("one")
    person.key("two")
    for program in ("ssh-agent", "kagent"):
        with agent(person, program, f"-t{LIFETIME}") as one:
            one.run("ssh-add", "one")
            one.run("ssh-add", "-t", "60", "two")
            assert len(one.run("ssh-add", "-l").stdout.splitlines()) == 2
            wait_until(lambda one=one: len(one.run("ssh-add", "-l").stdout.splitlines()) == 1)


def test_a_lifetime_of_nothing_is_refused(kagent: Agent) -> None:
    """For the kernel, no seconds would mean no end.  (ssh-add itself leaves it out.)"""
    from kagent.private.keyfile import parse
    from kagent.protocol.constraints import Lifetime
    from kagent.protocol.messages import AddIdConstrained

    named, _ = parse(kagent.person.key("key").read_bytes())
    with kagent.connect() as stream:
        frame = encode(AddIdConstrained(named, "key", (Lifetime(0),)))
        assert ask(stream, frame) == encode(Failure())
        assert "no seconds" in explained(stream)


def test_confirm(same: Same, person: Person) -> None:
    """The user is asked each time, in words that begin as ssh-agent's."""
    person.key("key", comment="key")
    asked = person.home / "asked"
    same("ssh-add", "-c", "key")
    assert same("ssh-add", "-T", "key.pub")[0] == 0
    theirs, ours = asked.read_text().split("Allow use of key key?\n")[1:]
    assert ours.startswith(theirs)
    assert "WARNING: not an ssh login" in ours
    person.file("answer", "1")
    assert same("ssh-add", "-T", "key.pub")[0] == 1


def test_a_question_that_is_open_stops_nobody(agents: tuple[Agent, Agent], person: Person) -> None:
    """And when the client goes, so does the question."""
    person.file("askpass", "#!/bin/sh\necho $$ >asking\nexec sleep 60\n", mode=0o700)
    person.key("key")
    person.key("other")
    kagent = agents[1]
    kagent.run("ssh-add", "-c", "key")
    kagent.run("ssh-add", "other")
    asking = person.home / "asking"
    environment = {"SSH_AUTH_SOCK": str(kagent.socket)}
    with person.start("ssh-add", "-T", "key.pub", env=environment) as client:
        wait_until(lambda: asking.exists() and asking.read_text())
        kagent.run("ssh-add", "-T", "other.pub")
        client.kill()
    window = int(asking.read_text())
    wait_until(lambda: not Path(f"/proc/{window}/exe").exists())


def test_without_a_way_to_ask_the_key_is_not_used(kagent: Agent) -> None:
    kagent.person.key("key")
    kagent.run("ssh-add", "-c", "key")
    assert kagent.run("ssh-add", "-T", "key.pub", check=False).returncode == 1
    assert "set DISPLAY or WAYLAND_DISPLAY" in kagent.logged()


def test_lock(same: Same, person: Person) -> None:
    person.key("key")
    person.key("other")
    env = {"SSH_ASKPASS": "./secret", "SSH_ASKPASS_REQUIRE": "force"}
    person.file("secret", "#!/bin/sh\ncat word\n", mode=0o700)
    word = person.file("word", "geheim\n")
    same("ssh-add", "key")
    assert same("ssh-add", "-X", **env)[0] == 1  # nothing is locked
    assert same("ssh-add", "-x", **env)[0] == 0
    assert same("ssh-add", "-l")[1] == "The agent has no identities.\n"
    for words in (("-T", "key.pub"), ("other",), ("-d", "key"), ("-D",)):
        assert same("ssh-add", *words)[0] == 1
    word.write_text("falsch\n")
    assert same("ssh-add", "-X", **env)[0] == 1
    word.write_text("geheim\n")
    assert same("ssh-add", "-X", **env)[0] == 0
    assert "key" in same("ssh-add", "-l")[1]
    assert same("ssh-add", "-T", "key.pub")[0] == 0


def test_each_wrong_guess_takes_longer(kagent: Agent) -> None:
    with kagent.connect() as stream:
        ask(stream, encode(Lock(b"geheim")))
        took = []
        for _ in range(4):
            start = time.monotonic()
            assert ask(stream, encode(Unlock(b"falsch"))) == encode(Failure())
            took.append(time.monotonic() - start)
        assert all(now >= 0.1 * number for number, now in enumerate(took, 1))
        assert ask(stream, encode(Unlock(b"geheim")))[4] == 6


@pytest.mark.parametrize("program", ["kagent", NEWEST], ids=["kagent", "ssh-agent"])
@pytest.mark.parametrize("first", [forward(A), encode(Extension(SESSION_BIND, b"no proof"))])
def test_who_comes_from_afar_while_locked_is_so_later(
    person: Person, program: str | Path, first: bytes
) -> None:
    """CVE-2026-73281, which ssh-agent has had until 10.5."""
    public, _ = parse_line(person.key("key").with_suffix(".pub").read_text())
    person.file("known", f"host {person.key('host').with_suffix('.pub').read_text()}")
    with agent(person, program) as running, running.connect() as stream:
        running.run("ssh-add", "-q", "-H", "known", "-h", "host", "key")
        assert ask(stream, encode(Lock(b"geheim"))) == SUCCESS
        ask(stream, first)
        assert ask(stream, encode(Unlock(b"geheim"))) == SUCCESS
        assert ask(stream, LISTING) == NOTHING
        assert ask(stream, encode(SignRequest(public.blob, b"data", 0))) == FAILURE
        assert ask(stream, encode(AddSmartcardKey(str(LIBRARY), PIN))) == FAILURE
    assert program == NEWEST or "allow-remote-pkcs11" in running.logged()


def test_a_lock_outlives_the_front(kagent: Agent) -> None:
    kagent.person.key("key")
    kagent.run("ssh-add", "key")
    with kagent.connect() as stream:
        ask(stream, encode(Lock(b"geheim")))
    os.kill(kagent.front, signal.SIGKILL)
    assert kagent.run("ssh-add", "-l", check=False).returncode == 1
    with kagent.connect() as stream:
        assert ask(stream, encode(Unlock(b"falsch"))) == encode(Failure())
        assert ask(stream, encode(Unlock(b"geheim")))[4] == 6
    kagent.run("ssh-add", "-T", "key.pub")


@pytest.mark.parametrize("options", [(), ("-t", "rsa"), ("-t", "ecdsa", "-b", "384")], ids=str)
def test_certificates(same: Same, person: Person, options: tuple[str, ...]) -> None:
    """Held beside its key, listed, signing and removed as one of its own."""
    certified(person, "key", *options)
    assert "Certificate added" in same("ssh-add", "key")[2]
    assert len(same("ssh-add", "-l")[1].splitlines()) == 2
    same("ssh-add", "-L")
    assert same("ssh-add", "-T", "key-cert.pub")[0] == 0
    assert same("ssh-add", "-d", "key-cert.pub")[0] == 0
    assert len(same("ssh-add", "-l")[1].splitlines()) == 1
    assert same("ssh-add", "-T", "key-cert.pub")[0] == 1
    assert same("ssh-add", "-T", "key.pub")[0] == 0


def test_unknown_extensions(agents: tuple[Agent, Agent]) -> None:
    frame = encode(Extension("unknown@example.org", b"anything"))
    for one in agents:
        with one.connect() as stream:
            assert ask(stream, frame) == encode(Failure())


def test_query(kagent: Agent) -> None:
    """RFC 9987 section 3.8.1; OpenSSH's agent has it since 10."""
    with kagent.connect() as stream:
        told = decode(ask(stream, encode(Extension("query", b"")))[4:])
    assert isinstance(told, ExtensionResponse)
    assert told.name == "query"
    assert b"session-bind@openssh.com" in told.contents


def test_a_bind_that_is_rubbish_fails(kagent: Agent) -> None:
    """With the answer for extensions, as OpenSSH's agent does since 9.9."""
    with kagent.connect() as stream:
        for contents in (b"", b"\0\0\0\1x", bytes(50)):
            answer = ask(stream, encode(Extension("session-bind@openssh.com", contents)))
            assert answer == encode(ExtensionFailure())
        assert ask(stream, encode(RequestIdentities()))[4] == 12


def test_all_keys_are_removed_by_a_signal(kagent: Agent) -> None:
    """SIGUSR1, as ssh-agent since 10.0."""
    kagent.person.key("key")
    kagent.run("ssh-add", "key")
    kagent.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: kagent.run("ssh-add", "-l", check=False).returncode == 1)
    kagent.run("ssh-add", "key")
    kagent.run("ssh-add", "-T", "key.pub")


def test_the_log_tells_of_each_signature(kagent: Agent) -> None:
    path = kagent.person.key("key", comment="key")
    kagent.run("ssh-add", path)
    kagent.run("ssh-add", "-T", "key.pub")
    fingerprint = kagent.person.run("ssh-keygen", "-l", "-f", path).stdout.split()[1]
    wait_until(lambda: "result=signed" in kagent.logged())
    [line] = [line for line in kagent.logged().splitlines() if "result=signed" in line]
    for part in (f"key={fingerprint}", "comment=key", "algorithm=ssh-ed25519", "custody=sealed"):
        assert part in line
    assert re.search(r"by=.\[?ssh-add\]? ← ", line)
    kagent.run("ssh-add", "-D")
    kagent.run("ssh-add", "-T", "key.pub", check=False)
    wait_until(lambda: "result=refused" in kagent.logged())
    assert 'reason="no such key: it was removed at ' in kagent.logged()
