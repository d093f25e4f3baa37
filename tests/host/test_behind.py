"""Other agents behind kagent: their keys are used through it, whatever those agents do."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagent.protocol.messages import (
    MAX_PAYLOAD,
    SESSION_BIND,
    VIA,
    Extension,
    IdentitiesAnswer,
    ListedKey,
    Message,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Via,
    decode,
    encode,
)
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import STRING, TEXT, UINT32
from tests.destinations.keys import A
from tests.destinations.requests import forward
from tests.host.test_confine import CALLS
from tests.machine.openssh import programs
from tests.support.behind import Answer, AsyncsshAgent, scripted
from tests.support.certificates import Browser
from tests.support.frames import FAILURE, LISTING, NOTHING, SUCCESS, ask, explained
from tests.support.injection import calls_in
from tests.support.programs import (
    RSA,
    SECONDS,
    Agent,
    Person,
    agent,
    children_of,
    sshd,
    wait_until,
)
from tests.support.tokens import PROVIDER

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may get into these processes")
CHECKOUT = Path(__file__).parent.parent.parent


@contextmanager
def behind(person: Person, *sockets: Path, options: tuple[str, ...] = ()) -> Iterator[Agent]:
    """A kagent that has those behind it."""
    words = [f"--behind={socket}" for socket in sockets]
    with agent(person, "kagent", *words, *options, env=asking(person)) as running:
        yield running


def asking(person: Person) -> dict[str, str]:
    """The variables of an ssh-askpass that writes into `asked`, and says yes if `answer` is 0."""
    script = """\
#!/bin/sh
printf "%s\\n" "$1" >>asked
[ "$SSH_ASKPASS_PROMPT" = confirm ] || echo secret
exit $(cat answer)
"""
    person.file("asked", "")
    person.file("answer", "0")
    program = person.file("askpass", script, mode=0o700)
    return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}


def public(path: Path) -> PublicKey:
    return parse_line(path.with_name(f"{path.name}.pub").read_text())[0]


def listed(running: Agent) -> list[str]:
    """The fingerprints of the keys, in order."""
    told = running.run("ssh-add", "-l", check=False).stdout
    return [line.split()[1] for line in told.splitlines() if "SHA256" in line]


def signs(running: Agent, *keys: Path) -> bool:
    files = [f"{key}.pub" for key in keys]
    return running.run("ssh-add", "-T", *files, check=False).returncode == 0


def certified(person: Person, key: Path) -> Path:
    """A certificate for it: the .pub beside it is the certificate, as ssh-add -T wants it."""
    authority = person.key("ca")
    person.run("ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", "me", f"{key}.pub")
    return key.with_name(f"{key.name}-cert")


def test_after_its_own_in_order(person: Person) -> None:
    """ssh-agent's keys of each type and a certificate, then those that asyncssh signs with."""
    own, *others = (person.key(name) for name in ("own", "first", "second"))
    rsa, ecdsa = person.key("rsa", *RSA), person.key("ecdsa", "-t", "ecdsa", "-b", "521")
    certificate = certified(person, rsa)
    with (
        agent(person, "ssh-agent") as first,
        scripted(person, "second.sock", AsyncsshAgent(others[1], ecdsa)) as second,
        behind(person, first.socket, second) as kagent,
    ):
        first.run("ssh-add", "-q", others[0], rsa)
        kagent.run("ssh-add", "-q", own)
        keys = (own, others[0], rsa, certificate, others[1], ecdsa)
        assert listed(kagent) == [public(key).fingerprint() for key in keys]
        assert signs(kagent, *keys)
        told = kagent.run("kagent-add", "-lv").stdout.splitlines()
        places = [line.removeprefix("    custody ") for line in told[1::2]]
        assert [line.split()[1] for line in told[::2]] == listed(kagent)
        assert places == ["sealed", *[f"behind {first.socket}"] * 3, *[f"behind {second}"] * 2]
        shown = json.loads(kagent.run("kagentctl", "show", "--json").stdout)["agent"]
        assert [one["custody"] for one in shown] == places
        assert f"3 behind {first.socket}" in kagent.run("kagentctl", "status").stdout
        wait_until(lambda: kagent.logged().count("result=signed") == len(keys))
        line = next(line for line in kagent.logged().splitlines() if "behind" in line)
        assert 'by="ssh-add ← ' in line
        assert f'custody="behind {first.socket}"' in line
        kagent.run("ssh-keygen", "-Y", "sign", "-f", f"{rsa}.pub", "-n", "x", own)


def test_tokens(person: Person) -> None:
    """Their signatures are verified as well; a key for the web signs nothing but ssh's, as ever."""
    keys = [person.home / "ed25519-sk", person.home / "ecdsa-sk"]
    web = TEXT.write("sk-ssh-ed25519@openssh.com") + STRING.write(bytes(32)) + TEXT.write("https")
    requests = []

    def answer(message: Message, _: socket.socket) -> bytes:
        requests.append(message)
        return encode(IdentitiesAnswer((ListedKey(web, "web"),)))

    with (
        agent(person, "ssh-agent", f"-P{PROVIDER}") as other,
        scripted(person, "web", answer) as path,
        behind(person, other.socket, path) as kagent,
        kagent.connect() as stream,
    ):
        for key in keys:
            person.run("ssh-keygen", "-q", "-t", key.name, "-w", PROVIDER, "-N", "", "-f", key)
            other.run("ssh-add", "-q", "-S", PROVIDER, key)
        assert signs(kagent, *keys)
        assert ask(stream, encode(SignRequest(web, b"challenge", 0))) == FAILURE
        assert "web-origin key" in explained(stream)
        assert not any(isinstance(one, SignRequest) for one in requests)


def test_an_agent_in_a_browser(person: Person, folder: Path) -> None:
    """Its tokens sign as browsers have them do, which servers take from OpenSSH 10.3 on."""
    key, browser = PublicKey.parse(Browser.public()), Browser()
    person.file("web.pub", key.line())

    def answer(message: Message, _: socket.socket) -> bytes:
        if isinstance(message, SignRequest):
            return encode(SignResponse(browser.sign(message.data)))
        listed = (ListedKey(key.blob, "web"),)
        return encode(IdentitiesAnswer(listed)) if message == RequestIdentities() else FAILURE

    with (
        scripted(person, "sock", answer) as path,
        behind(person, path) as kagent,
        sshd(person, folder / "sshd", key.line(), programs=programs()) as server,
    ):
        for tester in ("ssh-add", "kagent-add", programs() / "ssh-add"):
            kagent.run(tester, "-T", "web.pub")
        assert kagent.run(*server.ssh(person), "echo", "in").stdout == "in\n"
        assert f'custody="behind {path}"' in kagent.logged()
        browser = Browser(other_origin=b"https://example.com")
        assert not signs(kagent, person.home / "web")


def test_gpg_agent(person: Person) -> None:
    home = person.home / "gnupg"
    person.run("mkdir", "-m", "700", home)
    gpg = {"GNUPGHOME": str(home)}
    make = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "me", "rsa2048"]
    person.run(*make, "auth", **gpg)
    told = person.run("gpg", "--batch", "--with-colons", "--with-keygrip", "-K", **gpg).stdout
    grip = next(line.split(":")[9] for line in told.splitlines() if line.startswith("grp"))
    person.file("gnupg/sshcontrol", f"{grip}\n")
    path = person.run("gpgconf", "--list-dirs", "agent-ssh-socket", **gpg).stdout.strip()
    try:
        person.run("gpgconf", "--kill", "gpg-agent", **gpg)
        with behind(person, Path(path)) as kagent:
            assert listed(kagent) == []
            person.run("gpg-connect-agent", "/bye", **gpg)
            person.run("gpg-agent", "--enable-ssh-support", "--daemon", check=False, **gpg)
            [line] = kagent.run("ssh-add", "-L").stdout.splitlines()
            person.file("card.pub", line)
            assert signs(kagent, person.home / "card")
            wait_until(lambda: f'custody="behind {path}"' in kagent.logged())
    finally:
        person.run("gpgconf", "--kill", "all", **gpg)


def test_adding_removing_and_locking_are_its_own(person: Person) -> None:
    key, own = person.key("key"), person.key("own")
    with agent(person, "ssh-agent") as other, behind(person, other.socket) as kagent:
        other.run("ssh-add", "-q", key)
        kagent.run("ssh-add", "-q", own)
        assert len(listed(other)) == 1
        told = kagent.run("kagent-add", "-d", f"{key}.pub", check=False)
        assert f"SSH_AUTH_SOCK={other.socket} ssh-add -d" in told.stderr
        askpass = asking(person)
        with kagent.connect() as early:
            assert len(ask(early, LISTING)) > 100
            kagent.run("ssh-add", "-x", **askpass)
            assert listed(kagent) == []
            assert not signs(kagent, key)
            request = encode(SignRequest(public(key).blob, b"data", 0))
            assert ask(early, request) == FAILURE
        assert signs(other, key)
        kagent.run("ssh-add", "-X", **askpass)
        kagent.run("ssh-add", "-D")
        assert listed(kagent) == listed(other) == [public(key).fingerprint()]
        assert signs(kagent, key)


def test_a_key_that_both_have(person: Person) -> None:
    """Is kagent's: its constraints hold, and it is listed once."""
    key = person.key("key")
    with agent(person, "ssh-agent") as other, behind(person, other.socket) as kagent:
        other.run("ssh-add", "-q", key)
        kagent.run("ssh-add", "-q", "-c", key)
        assert listed(kagent) == [public(key).fingerprint()]
        person.file("answer", "1")
        assert not signs(kagent, key)
        assert "Allow use" in (person.home / "asked").read_text()
        person.file("answer", "0")
        assert signs(kagent, key)
        wait_until(lambda: "result=signed" in kagent.logged())
        assert "behind" not in kagent.logged()


@pytest.mark.parametrize("when", ["always", "forwarded"])
def test_asking_before_they_are_used(person: Person, when: str) -> None:
    key = person.key("key")
    with (
        agent(person, "ssh-agent") as other,
        behind(person, other.socket, options=(f"--confirm-behind={when}",)) as kagent,
        kagent.connect() as stream,
    ):
        other.run("ssh-add", "-q", key)
        person.file("answer", "1")
        assert signs(kagent, key) is (when == "forwarded")
        request = encode(SignRequest(public(key).blob, b"data", 0))
        assert ask(stream, forward(A)) == SUCCESS
        assert ask(stream, request) == FAILURE
        asked = (person.home / "asked").read_text()
        assert asked.count("Allow use of key") == 1 + (when == "always")
        assert "FORWARDED" in asked
        person.file("answer", "0")
        assert len(ask(stream, request)) > 64


def test_logins_and_their_destinations(person: Person, folder: Path) -> None:
    """By ssh-agent's rules: kagent passes on which hosts ssh names; and its own log has them."""
    key = person.key("key")
    authorized = (person.home / "key.pub").read_text()
    with (
        sshd(person, folder / "one", authorized) as one,
        sshd(person, folder / "two", authorized) as two,
        agent(person, "ssh-agent") as other,
        behind(person, other.socket) as kagent,
    ):
        known = [(server.folder / "known_hosts").read_text() for server in (one, two)]
        person.file("known_hosts", "".join(known))
        (person.home / ".ssh").mkdir(mode=0o700)
        person.file(".ssh/known_hosts", "".join(known))
        names = [f"[127.0.0.1]:{server.port}" for server in (one, two)]
        through = [*one.ssh(person, "-A"), shlex.join([*two.ssh(person), "true"])]
        commands = ([*one.ssh(person), "true"], [*two.ssh(person), "true"], through)

        def logins(*constraints: str) -> list[bool]:
            words = [word for one in constraints for word in ("-h", one)]
            other.run("ssh-add", "-q", "-D")
            other.run("ssh-add", "-q", "-H", "known_hosts", *words, key)
            return [kagent.run(*one, check=False).returncode == 0 for one in commands]

        assert logins() == [True, True, True]
        wait_until(lambda: f'host="{names[0]} → {names[1]}"' in kagent.logged())
        assert "forwarded=yes" in kagent.logged()
        assert logins(names[0]) == [True, False, False]
        seen = kagent.run(*one.ssh(person, "-A"), "ssh-add -l", check=False)
        assert seen.stdout == "The agent has no identities.\n"
        assert logins(names[0], f"{names[0]}>{names[1]}") == [True, False, True]
        # A forwarded agent, behind a kagent on the other host.
        command = 'kagent --keyring private --behind "$SSH_AUTH_SOCK" ssh-add -T'
        words = f"PATH={Path(sys.executable).parent}:$PATH {command} {key}.pub"
        other.run("ssh-add", "-q", "-D")
        other.run("ssh-add", "-q", key)
        kagent.run(*one.ssh(person, "-A"), words)


def test_what_is_passed_on(person: Person) -> None:
    """Each session-bind, also one that failed; no other extension; on each connection anew."""
    seen: list[list[Message]] = []

    def answer(message: Message, _: socket.socket) -> bytes:
        if isinstance(message, Extension) and message.name == VIA:
            seen.append([])
        seen[-1].append(message)
        return encode(IdentitiesAnswer(())) if message == RequestIdentities() else FAILURE

    good, bad = forward(A), encode(Extension(SESSION_BIND, b"nonsense"))
    with (
        scripted(person, "sock", answer) as path,
        behind(person, path) as kagent,
        kagent.connect() as bound,
        kagent.connect() as unbound,
    ):
        for frame in (bad, good, encode(Extension("something@example.org", b""))):
            ask(bound, frame)
        for stream in (bound, unbound, bound):
            ask(stream, LISTING)
    expected = [decode(bad[4:]), decode(good[4:]), RequestIdentities()]
    assert [one[1:] for one in seen] == [expected, expected[2:], expected]


KEY = PublicKey.parse(TEXT.write("ssh-ed25519") + STRING.write(bytes(32)))
LISTED = encode(IdentitiesAnswer((ListedKey(KEY.blob, "\033[2J\ncolour\u202e"),)))
UNKNOWN = TEXT.write("ssh-unheard-of") + STRING.write(b"x")


def drip(_: Message, stream: socket.socket) -> bytes:
    """A byte now and then, for ever."""
    over = threading.Event()
    stream.sendall(UINT32.write(MAX_PAYLOAD) + b"\x0c")
    while not over.wait(0.1):
        stream.sendall(b"\0")
    return b""


def flood(_: Message, stream: socket.socket) -> bytes:
    """Message after message, that nobody has asked for."""
    while True:
        stream.sendall(LISTED * 100)


LISTS: dict[str, Answer | bytes] = {
    "failure": FAILURE,
    "wrong message": SUCCESS,
    "too long": UINT32.write(MAX_PAYLOAD + 1) + b"\x0c",
    "empty": UINT32.write(0),
    "too many": encode(IdentitiesAnswer(()))[:5] + b"\xff\xff\xff\xff",
    "half a key": UINT32.write(14) + b"\x0c" + UINT32.write(1) + STRING.write(b"ssh-r"),
    "no key": encode(IdentitiesAnswer((ListedKey(b"", "x"), ListedKey(b"\0\0\0\x07ssh", "x")))),
    "of no known type": encode(IdentitiesAnswer((ListedKey(UNKNOWN, "x"),))),
    "drip": drip,
    "flood": flood,
    "nothing": lambda message, stream: b"",
}


@pytest.mark.parametrize("answered", LISTS)
def test_a_hostile_list(person: Person, answered: str) -> None:
    """kagent's own keys are listed and sign all the same."""
    own = person.key("own")
    frame = LISTS[answered]
    answer = frame if callable(frame) else lambda message, stream: frame
    with scripted(person, "sock", answer) as path, behind(person, path) as kagent:
        kagent.run("ssh-add", "-q", own)
        found = [public(own).fingerprint(), *([KEY.fingerprint()] if answered == "flood" else [])]
        assert listed(kagent) == found
        assert not signs(kagent, person.key("other"))
        assert signs(kagent, own)
        if answered == "of no known type":
            assert "1 keys of the agent behind" in kagent.logged()
        if answered in ("drip", "nothing"):
            assert "it did not answer in time; not asked again for" in kagent.logged()
        wait_until(lambda: not relays(kagent))
        assert not kagent.run("kagent-add", "-d", f"{own}.pub", check=False).returncode


def test_a_hostile_agent(person: Person) -> None:
    """No signature is passed on that isn't the one that was asked for."""
    key, other, rsa = person.key("key"), person.key("other"), person.key("rsa", *RSA)
    good = AsyncsshAgent(key, rsa)
    nowhere = socket.socket()
    requests: list[SignRequest] = []

    def signature(request: SignRequest) -> bytes:
        made = good(request, nowhere)
        message = decode(made[4:])
        assert isinstance(message, SignResponse)
        return message.signature

    def of_another_key(request: SignRequest) -> bytes:
        stranger = AsyncsshAgent(other)
        made = stranger(request.replace(blob=public(other).blob), nowhere)
        return decode(made[4:]).signature  # type: ignore[attr-defined,no-any-return]

    lies = {
        "of another key": of_another_key,
        "for other data": lambda request: signature(request.replace(data=b"other data")),
        "with more behind it": lambda request: signature(request) + b"\0",
        "cut off": lambda request: signature(request)[:-1],
        "of nothing": lambda request: b"",
        "endless": lambda request: b"\xff" * (MAX_PAYLOAD - 5),
    }
    lie = signature

    def answer(message: Message, stream: socket.socket) -> bytes:
        if isinstance(message, SignRequest):
            requests.append(message)
            return encode(SignResponse(lie(message)))
        return good(message, stream)

    with (
        nowhere,
        scripted(person, "sock", answer) as path,
        behind(person, path) as kagent,
        kagent.connect() as stream,
    ):
        assert signs(kagent, key, rsa)
        for name, one in lies.items():
            lie = one
            request = SignRequest(public(key).blob, b"data", 0)
            assert ask(stream, encode(request)) == FAILURE, name
            assert requests.pop() == request
            assert f"the agent behind {path}: " in explained(stream)
        # SHA-1, where another was asked for.
        lie = lambda request: signature(request.replace(flags=0))  # noqa: E731
        assert ask(stream, encode(SignRequest(public(rsa).blob, b"data", 4))) == FAILURE
        assert "it has signed with ssh-rsa, not with rsa-sha2-512" in explained(stream)
        lie = signature
        assert signs(kagent, key)


def test_a_list_that_changes(person: Person) -> None:
    """What isn't there any more isn't asked of another; a comment drives no terminal."""
    key = person.key("key")
    good = AsyncsshAgent(key)
    has: list[bytes] = [LISTED]

    def answer(message: Message, stream: socket.socket) -> bytes:
        return has[0] if isinstance(message, RequestIdentities) else good(message, stream)

    with (
        scripted(person, "sock", answer) as path,
        behind(person, path) as kagent,
        kagent.connect() as stream,
    ):
        assert b"\\x1b[2J\\ncolour\\u202e" in ask(stream, LISTING)
        has[0] = good(RequestIdentities(), stream)
        assert ask(stream, encode(SignRequest(KEY.blob, b"data", 0))) == FAILURE
        assert "it refused" in explained(stream)
        assert len(ask(stream, encode(SignRequest(public(key).blob, b"data", 0)))) > 64


def test_the_newest_ssh_agent(person: Person) -> None:
    """With all types of keys that it has of files."""
    newest, keys = programs(), []
    for kind in ("ed25519", "rsa", "ecdsa", "mldsa44-ed25519"):
        keys.append(person.home / kind)
        person.run(newest / "ssh-keygen", "-q", "-N", "", "-t", kind, "-f", keys[-1])
    with agent(person, newest / "ssh-agent") as other, behind(person, other.socket) as kagent:
        other.run(newest / "ssh-add", "-q", *keys)
        assert kagent.run("ssh-add", "-L").stdout.count("\n") >= 3
        kagent.run(newest / "ssh-add", "-T", *(f"{key}.pub" for key in keys))


def test_named_in_the_configuration(person: Person) -> None:
    """As on the command line, which adds to it, and says what else the file says."""
    one, two = person.key("one"), person.key("two")
    folder = person.home / ".config/kagent"
    folder.mkdir(parents=True)
    with agent(person, "ssh-agent") as first, agent(person, "ssh-agent") as second:
        first.run("ssh-add", "-q", one)
        second.run("ssh-add", "-q", two)
        settings = f"behind = ['~/{first.socket.name}']\ncustody = 'kernel'\nburst = 0\n"
        (folder / "kagent.toml").write_text(settings)
        with agent(person, "kagent", "--behind", second.socket, "--custody=sealed") as kagent:
            kagent.run("ssh-add", "-T", f"{one}.pub", f"{two}.pub")
            kagent.run("ssh-add", "-q", person.key("own"))


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        ("behinds = []", 0o600, "unknown word 'behinds'; did you mean 'behind'?"),
        ("whatever = 1", 0o600, ":1: unknown word 'whatever'; there are address, allow-remote"),
        ("behind = ['agent.sock']", 0o600, "behind takes a path from / or ~"),
        ("\nbehind = [\n1]", 0o600, "kagent.toml:2: behind takes a path from / or ~, not 1"),
        ("restrict-websafe = 1", 0o600, "restrict-websafe takes true or false, not 1"),
        ("allowed-providers = [1]", 0o600, "allowed-providers takes a list of patterns, not [1]"),
        ("address = '/a'\ndirectory = 'user:b'", 0o600, ":2: address and directory: only one"),
        ("custody = ['sealed']", 0o600, "custody takes what --custody takes, not ['sealed']"),
        ("custody = 'none'", 0o600, "--custody takes kernel or sealed, not 'none'"),
        ("custody", 0o600, "kagent.toml:1: Expected '=' after a key"),
        ("custody = 'sealed'", 0o602, "others can write to it: chmod go-w"),
    ],
)
def test_an_error_in_the_configuration(person: Person, content: str, mode: int, told: str) -> None:
    """Nothing is started, and nothing else that kagent does minds."""
    (person.home / ".config/kagent").mkdir(parents=True)
    person.file(".config/kagent/kagent.toml", f"{content}\n", mode=mode)
    done = person.run("kagent", "-s", check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert not done.stdout
    assert person.run("kagent", "-V").stderr.startswith("kagent ")


def ed25519_blob(point: bytes) -> bytes:
    return TEXT.write("ssh-ed25519") + STRING.write(point)


def test_more_keys_than_have_room(person: Person) -> None:
    """kagent's own are listed first, and the answer stays one that clients take."""
    own = person.key("own")
    comment = "long " * 200
    first, second = (
        [ListedKey(ed25519_blob(bytes((n, agent)) * 16), comment) for n in range(200)]
        for agent in range(2)
    )
    answers = [encode(IdentitiesAnswer(tuple(keys))) for keys in (first, second)]
    with (
        scripted(person, "one", lambda message, stream: answers[0]) as one,
        scripted(person, "two", lambda message, stream: answers[1]) as two,
        behind(person, one, two) as kagent,
        kagent.connect() as stream,
    ):
        kagent.run("ssh-add", "-q", own)
        message = decode(ask(stream, LISTING)[4:])
        assert isinstance(message, IdentitiesAnswer)
        assert message.identities[0].blob == public(own).blob
        assert 1 + len(first) < len(message.identities) < 1 + len(first) + len(second)
        assert "have more keys than have room" in kagent.logged()


def test_one_that_hangs_keeps_nobody_else_waiting(person: Person) -> None:
    """Neither those who ask for other keys, nor the agents behind it in the list."""
    own, key = person.key("own"), person.key("key")
    good = AsyncsshAgent(key)
    waiting, go = threading.Event(), threading.Event()

    def slow(message: Message, stream: socket.socket) -> bytes:
        if isinstance(message, SignRequest):
            waiting.set()
            go.wait(SECONDS)
        return good(message, stream)

    with (
        scripted(person, "slow", slow) as path,
        behind(person, path) as kagent,
        kagent.connect() as stream,
    ):
        kagent.run("ssh-add", "-q", own)
        request = encode(SignRequest(public(key).blob, b"data", 0))
        stream.sendall(request)
        assert waiting.wait(SECONDS)
        assert signs(kagent, own)
        assert len(listed(kagent)) == 2
        go.set()
        assert len(stream.recv(1000)) > 64


def test_what_other_hosts_are_told(person: Person) -> None:
    """No path of this one's; and where too much is bound to be passed on, nothing behind is."""
    path = person.home / "nowhere"
    with behind(person, path) as kagent, kagent.connect() as stream:
        request = encode(SignRequest(KEY.blob, b"data", 0))
        assert ask(stream, request) == FAILURE
        assert str(path) in explained(stream)
        ask(stream, forward(A))
        assert ask(stream, request) == FAILURE
        assert "an agent behind: no agent there" in explained(stream)
        assert str(path) not in explained(stream)
        with scripted(person, path.name, lambda message, stream: LISTED):
            assert len(ask(stream, LISTING)) > len(NOTHING)
            for _ in range(2):
                ask(stream, encode(Extension(SESSION_BIND, os.urandom(40000))))
            assert ask(stream, LISTING) == NOTHING
            assert ask(stream, request) == FAILURE
            assert "too much was bound" in explained(stream)


def test_one_that_comes_later(person: Person) -> None:
    key, path = person.key("key"), person.home / "later"
    with behind(person, path) as kagent:
        assert listed(kagent) == []
        assert not signs(kagent, key)
        assert "No such file" in kagent.logged()
        for _ in range(2):
            with scripted(person, "later", AsyncsshAgent(key)):
                assert signs(kagent, key)
            assert listed(kagent) == []
        assert kagent.logged().count("nothing is listed of the agent") == 3
        assert kagent.logged().count("answers") == 2


def test_kagent_behind_itself(person: Person) -> None:
    """Told at the start if it is plain, or when it is found out: by a link, or through others."""
    own, key = person.key("own"), person.key("key")
    path = person.home / "a"
    told = person.run("kagent", "-D", "-a", path, f"--behind={path}", check=False)
    assert told.returncode == 1
    assert "that is this kagent's own socket" in told.stderr
    assert not path.exists()
    link = person.home / "link"
    with behind(person, link) as first, behind(person, first.socket) as second:
        for target in (first.socket, second.socket):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            first.run("ssh-add", "-q", own)
            second.run("ssh-add", "-q", key)
            expected = [public(own).fingerprint(), public(key).fingerprint()]
            assert listed(second) == expected[::-1]
            assert set(listed(first)) == set(expected[: 1 + (target == second.socket)])
            assert signs(second, own, key)
            assert "kagent is behind itself, by way of who asks" in first.logged()
        assert "this kagent is behind itself there" in first.logged()
        wait_until(lambda: not relays(first) and not relays(second))


def test_via(person: Person) -> None:
    """What another says of where it comes from can take nothing but what is behind."""
    with (
        agent(person, "ssh-agent") as other,
        behind(person, other.socket) as kagent,
        kagent.connect() as stream,
    ):
        kagent.run("ssh-add", "-q", person.key("own"))
        other.run("ssh-add", "-q", person.key("key"))
        for via in ((), (bytes(16),) * 8):
            assert ask(stream, encode(Extension(VIA, Via(via).write()))) == SUCCESS
            assert len(decode(ask(stream, LISTING)[4:]).identities) == 2  # type: ignore[attr-defined]
        for contents in (b"\0", STRING.write(b"short"), STRING.write(bytes(16)) * 9):
            assert ask(stream, encode(Extension(VIA, contents))) != SUCCESS


@as_root
def test_of_another_user(person: Person, folder: Path) -> None:
    """Whoever can write where the socket is, is not asked."""
    listening = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        "new = sys.argv[1] + '.new'; s.bind(new); os.chmod(new, 0o777); s.listen(); "
        "os.rename(new, sys.argv[1]); s.accept()[0].recv(1)"
    )
    folder.chmod(0o777)
    path = folder / "strange"
    with behind(person, path) as kagent:
        command = [sys.executable, "-c", listening, str(path)]
        with subprocess.Popen(command) as stranger:
            wait_until(path.exists)
            assert listed(kagent) == []
            assert "it is another user's, of uid 65534" in kagent.logged()
            stranger.kill()


def relays(running: Agent) -> list[int]:
    """Confined ones, which wait for the agent behind."""

    def is_relay(pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return False
        return "kagent-relay" in status and "Seccomp:\t2" in status

    return [pid for pid in children_of(running.keeper) if is_relay(pid)]


@as_root
def test_a_relay_worker_that_is_taken_over(person: Person) -> None:
    """It has the connection to the agent that did it, and nothing else."""

    def answer(message: Message, _: socket.socket) -> bytes:
        return b"" if isinstance(message, SignRequest) else LISTED

    with (
        scripted(person, "sock", answer) as path,
        behind(person, path) as kagent,
        kagent.connect() as stream,
    ):
        assert len(ask(stream, LISTING)) > len(NOTHING)
        wait_until(lambda: not relays(kagent))
        stream.sendall(encode(SignRequest(KEY.blob, b"data", 0)))
        wait_until(lambda: relays(kagent))
        [worker] = relays(kagent)
        assert calls_in(worker, *CALLS) == [-errno.EPERM] * len(CALLS)
        kinds = [os.readlink(one).split(":")[0] for one in Path(f"/proc/{worker}/fd").iterdir()]
        assert kinds.count("socket") <= 3


@pytest.mark.parametrize("words", [(), ("--behind", "nowhere")])
def test_nothing_of_it_without_it(person: Person, words: tuple[str, ...]) -> None:
    """No module that is for agents behind alone is imported."""
    log, path = person.file("log", ""), person.home / "imports"
    command = [sys.executable, "-X", "importtime", "-m", "kagent.cli.agent", "-D", "-a", path]
    with (
        log.open("w") as output,
        person.start(*command, *words, stderr=output, cwd=CHECKOUT) as process,
    ):
        try:
            for module in ("errands", "load", "lookout", "seal", "sign"):
                wait_until(lambda: f"kagent.workers.{module}\n" in log.read_text())  # noqa: B023
            person.run("ssh-add", "-l", check=False, SSH_AUTH_SOCK=str(path))
        finally:
            process.terminate()
    imported = {"kagent.front.behind", "kagent.workers.relay"}.intersection(log.read_text().split())
    assert len(imported) == (2 if words else 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--behind="], "takes the path of another agent's socket"),
        ([f"--behind={'x' * 120}"], "of at most 107 bytes"),
        (["--confirm-behind=always"], "of no use without --behind"),
        (["--behind=x", "--confirm-behind=never"], "takes always or forwarded, not 'never'"),
    ],
)
def test_words_that_make_no_sense(person: Person, words: list[str], said: str) -> None:
    told = person.run("kagent", "-D", *words, check=False)
    assert told.returncode == 1
    assert said in told.stderr
