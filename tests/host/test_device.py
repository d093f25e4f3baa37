"""FIDO keys in the agent, beside ssh-agent: OpenSSH's test provider is the token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kagent.private.keyfile import parse
from kagent.protocol.constraints import SkProvider
from kagent.protocol.messages import (
    AddIdConstrained,
    Failure,
    Message,
    SignRequest,
    SignResponse,
    Success,
    decode,
    encode,
)
from kagent.protocol.privatekey import NamedPrivateKey, SkEd25519PrivateKey
from kagent.protocol.wire import STRING, TEXT
from tests.support.programs import Agent, Person, agent, sshd
from tests.support.tokens import ASKPASS, PROVIDER, WANTS_PIN

BOTH = ("ssh-agent", "kagent")
SSHSIG = (
    b"SSHSIG" + TEXT.write("file") + TEXT.write("") + TEXT.write("sha512") + STRING.write(bytes(64))
)


def make(person: Person, type: str, *options: str) -> Path:
    path = person.home / "key"
    words = [word for option in options for word in ("-O", option)]
    person.run("ssh-keygen", "-q", "-t", type, "-w", PROVIDER, "-N", "", "-f", path, *words)
    return path


def request(running: Agent, message: Message) -> Message:
    with running.connect() as stream:
        stream.sendall(encode(message))
        answer = stream.makefile("rb")
        return decode(answer.read(int.from_bytes(answer.read(4), "big")))


@pytest.mark.parametrize("with_certificate", [False, True], ids=["plain", "certificate"])
@pytest.mark.parametrize("type", ["ed25519-sk", "ecdsa-sk"])
@pytest.mark.parametrize("program", BOTH)
def test_login_and_signed_file(
    person: Person, folder: Path, program: str, type: str, with_certificate: bool
) -> None:
    key = make(person, type)
    public = (person.home / "key.pub").read_text()
    authorized = public
    options = ["-i", "key.pub", "-o", "IdentitiesOnly=yes"]
    if with_certificate:
        person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "ca")
        person.run("ssh-keygen", "-q", "-s", "ca", "-I", "me", "-n", person.name, "key.pub")
        authorized = f"cert-authority {(person.home / 'ca.pub').read_text()}"
        options += ["-o", "CertificateFile=key-cert.pub"]
    with (
        sshd(person, folder / "sshd", authorized) as server,
        agent(person, program, f"-P{PROVIDER}") as running,
    ):
        running.run("ssh-add", "-q", "-S", PROVIDER, key)
        key.unlink()  # from now on only the agent can sign
        listed = running.run("ssh-add", "-l").stdout.splitlines()
        kinds = [f"({type.upper()})", f"({type.upper()}-CERT)"][: 1 + with_certificate]
        assert [line.split()[-1] for line in listed] == kinds
        for tester in ("ssh-add", "kagent-add"):
            running.run(
                tester, "-T", *[f"key{'-cert' * number}.pub" for number in range(len(kinds))]
            )

        told = running.run(*server.ssh(person, *options), "echo", "hello")
        assert told.stdout == "hello\n"
        assert f" {kinds[-1][1:-1]} " in re.findall("Accepted .*", server.log.read_text())[-1]

        person.file("message", "a message\n")
        person.file("allowed", f"me {public}")
        running.run("ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", "key.pub", "message")
        words = ["-n", "file", "-I", "me", "-f", "allowed", "-s", "message.sig"]
        person.run("ssh-keygen", "-Y", "verify", *words, input="a message\n")


def test_the_same_answers(person: Person) -> None:
    """Which providers are taken, and what becomes of a key that was."""
    make(person, "ed25519-sk")
    (person.home / "link.so").symlink_to(PROVIDER)
    told: list[list[object]] = []
    for program in BOTH:
        said: list[object] = []
        for allowed in ([], [f"-P{PROVIDER}"], ["-P*,!*.so"], ["-P*/link.so"]):
            with agent(person, program, *allowed) as running:
                for words in (
                    ["-S", PROVIDER, "key"],
                    ["-l"],
                    ["-S", person.home / "link.so", "key"],
                    ["-S", "/nowhere.so", "key"],
                    ["-S", "internal", "key"],
                    ["-L"],
                    ["-T", "key.pub"],
                    ["-d", "key"],
                    ["-l"],
                ):
                    done = running.run("ssh-add", *words, check=False)
                    said.append((done.returncode, done.stdout, done.stderr))
        told.append(said)
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("programs", "options", "signed"),
    [
        (BOTH, [], False),
        (BOTH, ["-Ono-restrict-websafe"], True),
        # OpenSSH 10 and later
        (["kagent"], ["-Owebsafe-allow=https://*"], True),
        (["kagent"], ["-Owebsafe-allow=http://*"], False),
    ],
)
def test_web_challenges(
    person: Person, programs: list[str], options: list[str], signed: bool
) -> None:
    """A key made for the web signs what ssh asks for; a web site's challenge only if told so."""
    named, _ = parse(make(person, "ed25519-sk").read_bytes())
    assert isinstance(named.key, SkEd25519PrivateKey)
    web = NamedPrivateKey(named.type, named.key.replace(application="https://example.org"))
    adding = AddIdConstrained(web, "web", (SkProvider(PROVIDER),))
    for program in programs:
        with agent(person, program, f"-P{PROVIDER}", *options) as running:
            assert request(running, adding) == Success()
            answers = [
                request(running, SignRequest(web.public_blob, data, 0))
                for data in (SSHSIG, b"a challenge", SSHSIG + b"\0")
            ]
            assert isinstance(answers[0], SignResponse)
            for answer in answers[1:]:
                assert isinstance(answer, SignResponse if signed else Failure)


def test_a_library_that_leads_elsewhere_by_then(person: Person) -> None:
    """What is allowed is what is loaded: where the path leads when the token is to sign."""
    make(person, "ed25519-sk")
    (person.home / "allowed").mkdir(0o755)
    library = person.file("allowed/library.so", Path(PROVIDER), mode=0o755)
    with agent(person, "kagent", f"-P{person.home}/allowed/*") as running:
        running.run("ssh-add", "-q", "-S", library, "key")
        running.run("ssh-add", "-T", "key.pub")
        library.rename(person.home / "elsewhere.so")
        library.symlink_to("../elsewhere.so")
        assert running.run("ssh-add", "-T", "key.pub", check=False).returncode == 1
        assert "elsewhere.so not allowed, see kagent -P" in running.logged()


def test_a_key_without_a_provider(kagent: Agent) -> None:
    """ssh-agent takes it, and can't sign with it: here the refusal comes where it is of use."""
    make(kagent.person, "ed25519-sk")
    named, _ = parse((kagent.person.home / "key").read_bytes())
    assert request(kagent, AddIdConstrained(named, "", ())) == Failure()
    assert "provider" in kagent.logged()


@pytest.fixture(params=BOTH)
def with_user(
    request: pytest.FixtureRequest, person: Person
) -> Iterator[tuple[Agent, Callable[[], str]]]:
    """An agent with a token that wants a PIN, and a user at a display; what the user was shown."""
    log = person.file("askpass.log", "")
    env = {
        "DISPLAY": ":9",
        "SSH_ASKPASS": str(person.file("askpass", ASKPASS, mode=0o700)),
        "SSH_SK_HELPER": str(person.file("helper", WANTS_PIN, mode=0o700)),
    }
    with agent(person, request.param, f"-P{PROVIDER}", env=env) as running:
        yield running, log.read_text


def test_a_pin(with_user: tuple[Agent, Callable[[], str]]) -> None:
    running, shown = with_user
    make(running.person, "ed25519-sk", "verify-required")
    running.run("ssh-add", "-q", "-S", PROVIDER, "key")
    running.person.file("answer", "1234\n")
    running.run("ssh-add", "-T", "key.pub")
    fingerprint = running.run("ssh-add", "-l").stdout.split()[1]
    wanted = "PIN and confirm user presence for ED25519-SK key"
    # kagent tells more, on lines that follow.
    assert shown().startswith(f"none: Confirm user presence for key ED25519-SK {fingerprint}")
    assert f"\n: Enter {wanted} {fingerprint}" in shown()
    running.person.file("answer", "4321\n")
    told = running.run("ssh-add", "-T", "key.pub", check=False)
    assert "agent refused operation" in told.stderr


def test_a_hanging_token_holds_nobody_else_up(person: Person) -> None:
    hanging = person.file("helper", "#!/bin/sh\nexec cat >/dev/null\n", mode=0o700)
    named, _ = parse(make(person, "ed25519-sk").read_bytes())
    with agent(person, "kagent", f"-P{PROVIDER}", env={"SSH_SK_HELPER": str(hanging)}) as running:
        running.run("ssh-add", "-q", "-S", PROVIDER, "key")
        with running.connect() as stream:
            stream.sendall(encode(SignRequest(named.public_blob, b"data", 0)))
            assert running.run("ssh-add", "-l").stdout.count("\n") == 1


def test_what_a_provider_could_reach(person: Person) -> None:
    """A provider is foreign code: it possesses none of the agent's keyrings, nor its keys."""
    reach = "#!/bin/sh\nkeyctl show @s >reached 2>&1\n"
    helper = person.file("helper", reach, mode=0o700)
    make(person, "ed25519-sk")
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "sealed")
    with agent(person, "kagent", f"-P{PROVIDER}", env={"SSH_SK_HELPER": str(helper)}) as running:
        running.run("ssh-add", "-q", "-S", PROVIDER, "key")
        running.run("ssh-add", "-q", "sealed")
        running.run("ssh-add", "-T", "key.pub", check=False)
    reached = (person.home / "reached").read_text()
    assert "keyring" in reached
    assert "kagent" not in reached
