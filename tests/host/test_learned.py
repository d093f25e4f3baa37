"""The key that fits the host comes first: by what was learned, and by the configuration."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent.learned import MOST, File, Learned, Unusable, with_login
from kagent.protocol.publickey import parse_line
from tests.destinations.agents import REFUSED, SIGNED, outcome
from tests.destinations.keys import AUTHORITY, CERTIFIED, SECOND, USERS_KEY, A, B, C, D, Key, new
from tests.destinations.requests import LIST, PLAIN, SSHSIG, add, bind, forward, login, remove, sign
from tests.hostile.people import begin_login, forget, somebody
from tests.machine.openssh import programs
from tests.support.frames import SUCCESS, ask
from tests.support.manual import block
from tests.support.programs import Agent, Person, Sshd, agent, sshd, wait_until

MANY = 30
TRIES = {"MaxAuthTries": "3"}
THIRD = new("third")
OTHERS = ("key", "second", "third")  # as they are loaded, and listed where nothing is known


def public(key: Path) -> str:
    return Path(f"{key}.pub").read_text()


def fingerprint(line: str) -> str:
    return parse_line(line)[0].fingerprint()


def notes(person: Person) -> Path:
    return person.home / ".local/state/kagent/hosts"


def noted(person: Person) -> list[tuple[str, ...]]:
    """The host and the key of each line."""
    path = notes(person)
    return (
        [tuple(line.split()[:2]) for line in path.read_text().splitlines()] if path.exists() else []
    )


def own_file(person: Person, name: str, content: str) -> Path:
    """One below the home, with folders of the person's own."""
    folder = (person.home / name).parent
    missing = [one for one in (*reversed(folder.parents), folder) if not one.exists()]
    for one in missing:
        one.mkdir(mode=0o700)
        os.chown(one, person.uid, person.gid)
    return person.file(name, content)


def configure(person: Person, *identities: str, general: str = "") -> None:
    text = "".join(f"[[identity]]\n{one}\n" for one in identities)
    own_file(person, ".config/kagent/kagent.toml", f"{general}\n{text}")


def gets_in(running: Agent, server: Sshd, *options: str) -> bool:
    told = running.run(*server.ssh(running.person, *options), "true", check=False)
    assert told.returncode == 0 or "Too many authentication failures" in told.stderr
    return told.returncode == 0


def by(key: Path) -> tuple[str, ...]:
    """ssh's options for a login with that key alone."""
    return ("-i", f"{key}.pub", "-o", "IdentitiesOnly=yes")


@pytest.fixture
def keys(person: Person) -> list[Path]:
    return [person.key(f"key{number:02}") for number in range(MANY)]


@pytest.mark.parametrize("release", ["this machine's", "the newest"])
def test_the_second_login_works_by_itself(
    person: Person, folder: Path, keys: list[Path], release: str
) -> None:
    """Of thirty keys, to servers that let a client try three; and with another agent later."""
    newest = None if release == "this machine's" else programs()
    mine, other = keys[20], keys[25]
    with (
        sshd(person, folder / "one", public(mine), programs=newest, **TRIES) as one,
        sshd(person, folder / "two", public(other), programs=newest, **TRIES) as two,
    ):
        with agent(person) as kagent:
            kagent.run("ssh-add", "-q", *keys)
            order = kagent.run("ssh-add", "-L").stdout
            for key, server in ((mine, one), (other, two)):
                assert not gets_in(kagent, server)
                assert gets_in(kagent, server, *by(key))
            hosts = [fingerprint((server.folder / "host.pub").read_text()) for server in (one, two)]
            users = [fingerprint(public(key)) for key in (mine, other)]
            pairs = list(zip(hosts, users, strict=True))
            wait_until(lambda: noted(person) == pairs)
            assert gets_in(kagent, one)
            assert gets_in(kagent, two)
            assert kagent.run("ssh-add", "-L").stdout == order
        assert notes(person).stat().st_mode & 0o777 == 0o600
        with agent(person) as later:
            later.run("ssh-add", "-q", *keys)
            assert gets_in(later, one)
            assert gets_in(later, two)
        assert noted(person) == pairs


def test_through_a_forwarded_agent_the_order_stays(
    person: Person, folder: Path, keys: list[Path]
) -> None:
    """The host that it is forwarded to has nothing learned, and gains nothing by what was."""
    with (
        sshd(person, folder / "one", public(keys[0]), **TRIES) as one,
        sshd(person, folder / "two", public(keys[20]), **TRIES) as two,
        agent(person) as kagent,
    ):
        kagent.run("ssh-add", "-q", *keys)

        def from_there(*options: str) -> bool:
            command = shlex.join([*two.ssh(person, *options), "true"])
            return kagent.run(*one.ssh(person, "-A"), command, check=False).returncode == 0

        assert from_there(*by(keys[20]))
        assert not gets_in(kagent, two)
        assert gets_in(kagent, two, *by(keys[20]))
        wait_until(lambda: len(noted(person)) == 2)
        assert gets_in(kagent, two)
        assert not from_there()


def test_a_host_with_a_certificate(person: Person, folder: Path, keys: list[Path]) -> None:
    """It is the key that is certified, whatever certificate it has; and the authority in
    known_hosts tells its name."""
    authority = person.key("authority")
    (folder / "certificate").mkdir()
    host = folder / "certificate/host"
    with (
        sshd(person, folder / "plain", public(keys[20]), **TRIES) as plain,
        agent(person) as kagent,
    ):
        kagent.run("ssh-add", "-q", *keys)
        host.with_suffix(".pub").write_text((plain.folder / "host.pub").read_text())
        words = ("-q", "-s", authority, "-I", "host", "-h", "-n", "127.0.0.1", f"{host}.pub")
        subprocess.run(["ssh-keygen", *words], check=True)
        assert gets_in(kagent, plain, *by(keys[20]))
        wait_until(lambda: len(noted(person)) == 1)
        extra = {
            "HostKey": str(plain.folder / "host"),
            "HostCertificate": f"{host}-cert.pub",
            **TRIES,
        }
        with sshd(person, folder / "one", public(keys[20]), **extra) as server:
            known = f"@cert-authority [127.0.0.1]:* {public(authority)}"
            (server.folder / "known_hosts").write_text(known)
            assert gets_in(kagent, server)
            own_file(person, ".ssh/known_hosts", known)
            configure(person, f'public = "{keys[0]}.pub"\nhosts = ["127.0.0.*"]')
            wait_until(
                lambda: (
                    gets_in(kagent, server)
                    and fingerprint(public(keys[0])) in server.log.read_text()
                )
            )


def test_a_certificate_of_the_user(person: Person, folder: Path, keys: list[Path]) -> None:
    """What is learned of a key holds for its certificates, also for the next one."""
    authority, mine = person.key("authority"), keys[20]
    trusted = person.file("trusted", public(authority))
    options = {"TrustedUserCAKeys": str(trusted), **TRIES}

    def certify() -> None:
        words = ("-q", "-s", authority, "-I", "me", "-n", person.name, f"{mine}.pub")
        person.run("ssh-keygen", *words)

    with sshd(person, folder / "one", "", **options) as server, agent(person) as kagent:
        certify()
        kagent.run("ssh-add", "-q", mine)
        assert gets_in(kagent, server)
        wait_until(lambda: len(noted(person)) == 1)
        kagent.run("ssh-add", "-q", "-d", mine)
        kagent.run("ssh-add", "-q", *keys[:20])
        assert not gets_in(kagent, server)
        certify()
        kagent.run("ssh-add", "-q", mine)
        assert gets_in(kagent, server)


@contextmanager
def holding(person: Person) -> Iterator[Agent]:
    """An agent with three keys."""
    with agent(person) as running:
        with running.connect() as stream:
            for key in (USERS_KEY, SECOND, THIRD):
                assert ask(stream, add(key=key)) == SUCCESS
        yield running


@pytest.fixture
def loaded(person: Person) -> Iterator[Agent]:
    with holding(person) as running:
        yield running


def listed(running: Agent, *frames: bytes) -> object:
    """What is listed after those, by comment."""
    with running.connect() as stream:
        for frame in frames:
            assert ask(stream, frame) == SUCCESS
        return outcome(ask(stream, LIST))


def log_in(running: Agent, host: Key, key: Key, *, to: bytes | None = None) -> None:
    """As ssh does: bind, list, sign."""
    with running.connect() as stream:
        assert ask(stream, bind(host)) == SUCCESS
        ask(stream, LIST)
        data = login(host, key=key) if to is None else to
        assert outcome(ask(stream, sign(data, key))) == SIGNED


def learn(running: Agent, host: Key, key: Key) -> None:
    log_in(running, host, key)
    pair = (host.public.fingerprint(), key.public.fingerprint())
    wait_until(lambda: pair in noted(running.person))


def test_where_it_is_ambiguous_the_order_stays(loaded: Agent) -> None:
    learn(loaded, A, THIRD)
    assert listed(loaded, bind(A)) == ("third", "key", "second")
    assert listed(loaded, bind(B)) == OTHERS
    learn(loaded, A, SECOND)
    assert listed(loaded, bind(A)) == OTHERS
    with loaded.connect() as stream:  # and of two, the only one that is there
        assert ask(stream, remove(SECOND)) == SUCCESS
    assert listed(loaded, bind(A)) == ("third", "key")


def test_whoever_is_not_ssh_at_a_login_has_the_order_of_old(loaded: Agent) -> None:
    learn(loaded, A, THIRD)
    assert listed(loaded) == OTHERS
    assert listed(loaded, forward(A)) == OTHERS
    assert listed(loaded, forward(B), bind(A)) == OTHERS
    with loaded.connect() as stream:
        false = bind(A, signature=B.sign(b"other"))
        assert outcome(ask(stream, false)) == REFUSED
        assert outcome(ask(stream, LIST)) == OTHERS


@pytest.mark.parametrize(
    ("frames", "data"),
    [
        ((bind(A),), SSHSIG),
        ((bind(A),), b"anything"),
        ((bind(A),), login(A, 1, key=THIRD)),  # another session
        ((bind(A),), login(A, key=THIRD, to=B)),
        ((forward(A),), login(A, key=THIRD)),
        ((forward(B), bind(A)), login(A, key=THIRD)),
        ((), login(A, key=THIRD, method=PLAIN)),
    ],
)
def test_what_teaches_nothing(loaded: Agent, frames: tuple[bytes, ...], data: bytes) -> None:
    with loaded.connect() as stream:
        for frame in frames:
            assert ask(stream, frame) == SUCCESS
        ask(stream, LIST)
        assert outcome(ask(stream, sign(data, THIRD))) == SIGNED
    learn(loaded, D, THIRD)  # what came before has been learned by then
    assert [host for host, _ in noted(loaded.person)] == [D.public.fingerprint()]


def test_learning_off(person: Person) -> None:
    """Nothing is noted, and what was noted counts no more."""
    with holding(person) as running:
        learn(running, A, THIRD)
        configure(person, general="learn-hosts = false")
        wait_until(lambda: listed(running, bind(A)) == OTHERS)
        log_in(running, B, THIRD)
        configure(person)
        wait_until(lambda: listed(running, bind(A)) == ("third", "key", "second"))
        learn(running, D, THIRD)
    assert B.public.fingerprint() not in notes(person).read_text()


def test_the_example_in_the_manual(loaded: Agent) -> None:
    person = loaded.person
    example = block("kagent.1", '[[identity]]\npublic = "~/.ssh/id_work.pub"')
    own_file(person, ".ssh/id_work.pub", THIRD.public.line())
    known = known_as(A, "web.example.org") + known_as(B, "test.example.org")
    own_file(person, ".ssh/known_hosts", known)
    own_file(person, ".config/kagent/kagent.toml", example)
    assert loaded.run("kagentctl", "check", check=False).stderr == ""
    assert listed(loaded, bind(A)) == ("third", "key", "second")
    assert listed(loaded, bind(B)) == ("key", "second")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_of_another_user_than_root(folder: Path) -> None:
    """The files are that user's, and read by processes that may ask the kernel for little."""
    someone = somebody("learner", folder)
    begin_login(someone)
    try:
        own_file(someone, ".ssh/known_hosts", known_as(B, "web1"))
        configure(someone, f'public = "{SECOND.public.line()}"\nhosts = ["web1"]')
        with holding(someone) as running:
            learn(running, A, THIRD)
            assert listed(running, bind(A)) == ("third", "key", "second")
            assert listed(running, bind(B)) == ("second", "key", "third")
        assert notes(someone).stat().st_uid == someone.uid
    finally:
        forget(someone)


def known_as(key: Key, *names: str) -> str:
    return f"{','.join(names)} {key.public.line()}\n"


def test_the_configuration_counts_before_what_was_learned(loaded: Agent) -> None:
    person = loaded.person
    known = known_as(A, "web1.example.org", "192.0.2.1") + known_as(B, "[b.example.net]:2222")
    own_file(person, ".ssh/known_hosts", known)
    learn(loaded, A, THIRD)
    second = f'public = "{SECOND.public.line()}"'
    only = f'{second}\nhosts = ["*.Example.org"]\nelsewhere = false'
    for text, at_a, at_b in (
        (f'{second}\nhosts = ["*.Example.org"]', ("second", "third", "key"), OTHERS),
        (
            f'{second}\nhosts = ["*", "!192.0.2.1"]',
            ("third", "key", "second"),
            ("second", "key", "third"),
        ),
        (
            f'{second}\nhosts = ["b.example.net"]',
            ("third", "key", "second"),
            ("second", "key", "third"),
        ),
        (only, ("second", "third", "key"), ("key", "third")),
    ):
        configure(person, text)
        wait_until(lambda at_a=at_a: listed(loaded, bind(A)) == at_a)  # type: ignore[misc]
        assert listed(loaded, bind(B)) == at_b
    # Who isn't known by name is elsewhere; who isn't bound, or forwarded, has the order of old.
    assert listed(loaded, bind(D)) == ("key", "third")
    assert "isn't known from known_hosts" in loaded.logged()
    assert listed(loaded) == listed(loaded, forward(B)) == OTHERS
    log_in(loaded, B, SECOND)  # it is about what is offered


def test_the_name_of_a_host_with_a_certificate(loaded: Agent) -> None:
    """Of the authority that known_hosts has for that name; D's certificate is for x and d."""
    person = loaded.person
    configure(person, f'public = "{SECOND.public.line()}"\nhosts = ["d"]')
    first = ("second", "key", "third")
    for known, expected in (
        (f"@cert-authority d,x {AUTHORITY.public.line()}\n", first),
        (f"@cert-authority y {AUTHORITY.public.line()}\n", OTHERS),
        (f"@cert-authority d {A.public.line()}\n", OTHERS),
        (
            f"@cert-authority * {AUTHORITY.public.line()}\n@revoked * {D.public.line()}\n",
            OTHERS,
        ),
        (f"@cert-authority * {AUTHORITY.public.line()}\n", first),
    ):
        own_file(person, ".ssh/known_hosts", known)
        assert listed(loaded, bind(CERTIFIED)) == expected


def in_its_place(path: Path, what: str) -> None:
    """Something that is no file of one's own, where the file is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if what == "a FIFO":
        os.mkfifo(path)
    elif what == "a link":
        (path.parent / "elsewhere").write_text("")
        path.symlink_to("elsewhere")
    elif what == "a folder":
        path.mkdir()
    elif what == "others'":
        path.write_text("")
        path.chmod(0o666)


@pytest.mark.parametrize("what", ["a FIFO", "a link", "a folder", "others'"])
def test_what_is_no_such_file_holds_nobody_up(loaded: Agent, what: str) -> None:
    in_its_place(notes(loaded.person), what)
    log_in(loaded, A, THIRD)
    assert listed(loaded, bind(A)) == OTHERS
    wait_until(lambda: "can't be learned" in loaded.logged())
    if what == "a link":
        assert (notes(loaded.person).parent / "elsewhere").read_text() == ""


def test_a_file_that_somebody_keeps_locked_holds_nobody_up(loaded: Agent) -> None:
    learn(loaded, A, THIRD)
    with notes(loaded.person).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        log_in(loaded, B, THIRD)
        assert listed(loaded, bind(A)) == ("third", "key", "second")
        wait_until(lambda: "another process has locked it" in loaded.logged())
    learn(loaded, B, THIRD)


FORGED = "SHA256:{} SHA256:{} 2026-01-01\n"


def test_it_is_bounded_and_what_is_nonsense_counts_nothing(loaded: Agent) -> None:
    """The oldest goes; and no forged file has a key sign that isn't asked for, or hides one."""
    person = loaded.person
    lines = [FORGED.format(f"{number:043}", "A" * 43) for number in range(MOST)]
    lines[500] = lines[500].replace("2026", "2025")
    forged = f"{A.public.fingerprint()} {THIRD.public.fingerprint()} 2026-01-02\n"
    own_file(
        person, ".local/state/kagent/hosts", "\0nonsense\nSHA256:\n" + "".join(lines[1:]) + forged
    )
    assert listed(loaded, bind(A)) == ("third", "key", "second")
    learn(loaded, B, THIRD)
    text = notes(person).read_text()
    assert "nonsense" not in text
    assert text.count("\n") == MOST
    assert lines[500] not in text
    assert lines[499] in text


def test_two_agents_write_at_once(person: Person) -> None:
    hosts = [new(f"host{number}") for number in range(12)]
    with holding(person) as one, holding(person) as other:
        for at, host in enumerate(hosts):
            log_in((one, other)[at % 2], host, THIRD)
        wait_until(lambda: len(noted(person)) == len(hosts))
    assert {host for host, _ in noted(person)} == {host.public.fingerprint() for host in hosts}


def ctl(running: Agent, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return running.run("kagentctl", "hosts", *words, check=check)


def test_what_was_learned_is_shown_and_forgotten(loaded: Agent) -> None:
    """Hosts by the names that known_hosts has for them, also where it is hashed, and keys by their
    comments; either may be named by its fingerprint."""
    person = loaded.person
    assert ctl(loaded).stdout.startswith("Nothing is learned yet")
    assert ctl(loaded, "forget", "--all").stdout == ""
    known = (known_as(A, "web1"), known_as(B, "[web2]:2222"), known_as(C, "web3"))
    own_file(person, ".ssh/known_hosts", "".join(known))
    person.run("ssh-keygen", "-q", "-H", "-f", person.home / ".ssh/known_hosts")
    own_file(person, ".ssh/config", "Host web1 web2\nPort 2222\n")
    third, second = (key.public.fingerprint() for key in (THIRD, SECOND))
    for host, key in ((A, THIRD), (A, SECOND), (B, THIRD), (C, SECOND), (D, SECOND)):
        learn(loaded, host, key)
    configure(person, f'public = "{THIRD.public.line()}"\nhosts = ["*.example.org"]')
    lines = ctl(loaded).stdout.splitlines()
    assert lines[0].startswith(f"*.example.org: {third} third, {person.home}/.config")
    at_web1 = [line for line in lines if line.startswith("web1: ")]
    assert len(at_web1) == 2
    assert all(line.endswith("(several keys: the order stays)") for line in at_web1)
    [at_web2] = [line for line in lines if line.startswith("web2: ")]
    assert re.fullmatch(rf"web2: {re.escape(third)} third, last on [-0-9]+", at_web2)
    [unknown] = [line for line in lines if line.startswith("unknown")]
    assert unknown.startswith(f"unknown, {D.public.fingerprint()}: {second} second, last on ")
    [hashed] = [line for line in lines if line.startswith("hashed in known_hosts, ")]
    assert hashed.split(": ")[0].endswith(C.public.fingerprint())
    told = json.loads(ctl(loaded, "--json").stdout)
    assert told["learns"] is True
    assert len(told["hosts"]) == 6
    ctl(loaded, "forget", "web3")
    ctl(loaded, "forget", "web1")
    assert {host for host, _ in noted(person)} == {one.public.fingerprint() for one in (B, D)}
    ctl(loaded, "forget", "second")
    assert noted(person) == [(B.public.fingerprint(), third)]
    missing = ctl(loaded, "forget", "web3", B.public.fingerprint(), check=False)
    assert missing.returncode == 1
    assert missing.stderr == "kagentctl hosts: nothing was learned of web3\n"
    assert noted(person) == []
    assert listed(loaded, bind(B)) == OTHERS
    learn(loaded, B, THIRD)
    ctl(loaded, "forget", "--all")
    assert notes(person).read_text() == ""
    own_file(person, ".ssh/known_hosts", known_as(A, "web1.example.org"))
    own_file(person, ".ssh/id_old.pub", SECOND.public.line())
    for host, key in ((A, THIRD), (B, SECOND), (D, THIRD)):
        learn(loaded, host, key)
    loaded.run("sh", "-euc", block("kagentctl.1", "kagentctl hosts forget"))
    assert noted(person) == [(D.public.fingerprint(), third)]
    for words in (("forget",), ("forget", "web1", "--all"), ("on", "web1"), ("--all",)):
        assert ctl(loaded, *words, check=False).returncode == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "learn-hosts = false\n"),
        ('custody = "sealed"\n', 'learn-hosts = false\ncustody = "sealed"\n'),
        ("# mine\nlearn-hosts=true # so\n", "# mine\nlearn-hosts = false\n"),
        (
            '[[identity]]\npublic = "x"\nlearn-hosts = 1\n',
            'learn-hosts = false\n[[identity]]\npublic = "x"\nlearn-hosts = 1\n',
        ),
        ('"learn-hosts" = true\n', None),
        ("learn-hosts = \n", None),
    ],
)
def test_it_is_turned_off_and_on(person: Person, before: str | None, after: str | None) -> None:
    path = person.home / ".config/kagent/kagent.toml"
    if before is not None:
        own_file(person, ".config/kagent/kagent.toml", before)
    told = person.run("kagentctl", "hosts", "off", check=False)
    assert told.returncode == (after is None)
    assert path.read_text() == (before if after is None else after)
    assert [one.name for one in path.parent.iterdir()] == ["kagent.toml"]
    if after:
        assert told.stdout == f"{path}: learn-hosts = false\n"
        person.run("kagentctl", "hosts", "on")
        assert path.read_text() == after.replace("false", "true")


@pytest.mark.parametrize("line", [("SHA256:x", "y", "z"), ("a\nb", "c", "2026-01-01")])
def test_nothing_but_logins_is_ever_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: tuple[str, str, str]
) -> None:
    """Whatever a front that was taken over has noted."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with File(to_write=True) as file, pytest.raises(Unusable):
        file.change(lambda lines: with_login(lines, Learned(*line)))
    assert (tmp_path / "kagent/hosts").read_text() == ""
