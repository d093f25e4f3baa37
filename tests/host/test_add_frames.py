"""kagent-add and ssh-add with the same arguments send an agent the same, byte for byte."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kagent.cli.add import keyfiles
from kagent.protocol.constraints import (
    AssociatedCertificates,
    ConfirmForwarded,
    Lifetime,
    RequireCustody,
)
from kagent.protocol.messages import (
    AddIdConstrained,
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    ExtensionResponse,
    Type,
    decode,
    encode,
)
from kagent.protocol.wire import TEXT
from tests.machine.openssh import programs
from tests.support import token_keys
from tests.support.frames import FAILURE, SUCCESS
from tests.support.programs import Person
from tests.support.recorder import Recorder, recorder

Sent = Callable[..., list[bytes]]


@pytest.fixture
def agent(person: Person) -> Iterator[Recorder]:
    with recorder(person) as running:
        yield running


@pytest.fixture
def same(agent: Recorder) -> Sent:
    """Runs both programs with the same arguments; gives what both have sent."""

    def run(*words: str, **options: str) -> list[bytes]:
        theirs, sent_by_them = agent.run("ssh-add", *words, **options)
        ours, sent_by_us = agent.run("kagent-add", *words, **options)
        assert sent_by_us == sent_by_them
        assert ours.returncode == theirs.returncode
        return sent_by_us

    return run


def certify(person: Person, path: Path) -> None:
    """Make a certificate without an end, under the authority `ca`."""
    if not (person.home / "ca").exists():
        person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "ca")
    person.run("ssh-keygen", "-q", "-s", "ca", "-I", "me", "-n", "root", f"{path}.pub")


def certified(person: Person, name: str, *options: str) -> Path:
    """A key with a certificate."""
    path = person.key(name, *options)
    certify(person, path)
    return path


def token_key(person: Person, name: str) -> Path:
    """A FIDO key with a certificate."""
    made = {"sk-ed25519": token_keys.sk_ed25519, "sk-ecdsa": token_keys.sk_ecdsa}[name]()
    path = person.file(name, token_keys.openssh_file(made, name))
    person.file(f"{name}.pub", token_keys.public_line(made, name))
    certify(person, path)
    return path


@pytest.fixture
def known(person: Person) -> None:
    """Files with hosts: named, hashed, by pattern, on a port, certified, revoked, and damage."""
    public = {}
    for name in ("one", "two", "authority"):
        person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", f"host_{name}")
        public[name] = (person.home / f"host_{name}.pub").read_text().strip()
    one, two, authority = public["one"], public["two"], public["authority"]
    person.file("hashed", f"hidden {one}\n[hidden]:2222,10.0.0.1 {two}\n", 0o600)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", person.home / "hashed"], check=True)
    lines = (
        f"alpha,10.0.0.2 {one} a comment",
        "alpha ssh-ed25519 damaged",
        f"[beta]:2222 {two}",
        f"@cert-authority *.example {authority}",
        f"@revoked alpha {two}",
        f"gamma.example,!delta.example {two}",
    )
    person.file("named", "".join(f"{line}\n" for line in lines))


MANY = ("-c", "-t", "1h30m", "-H", "named", "-h", "alpha", "-h", "alpha>me@gamma.example")
KINDS = {
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ecdsa": ("-t", "ecdsa", "-b", "521"),
    "ed25519": ("-t", "ed25519"),
    "sk-ed25519": None,
    "sk-ecdsa": None,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("known")
def test_every_kind_of_key(same: Sent, person: Person, kind: str) -> None:
    options = KINDS[kind]
    path = certified(person, kind, *options) if options else token_key(person, kind)
    assert [payload[0] for payload in same(path.name)] == (
        [Type.ADD_IDENTITY] * 2 if options else [Type.ADD_ID_CONSTRAINED] * 2
    )
    assert [payload[0] for payload in same(*MANY, path.name)] == [Type.ADD_ID_CONSTRAINED] * 2
    assert len(same("-k", path.name)) == 1
    assert [payload[0] for payload in same("-d", path.name)] == [Type.REMOVE_IDENTITY] * 2
    assert len(same("-dk", path.name)) == 1


def test_providers(same: Sent, person: Person) -> None:
    path = token_key(person, "sk-ed25519")
    path.with_name("sk-ed25519-cert.pub").unlink()
    for words, environment, told in (
        (["-S", "/lib/some.so"], {"SSH_SK_PROVIDER": "/lib/other.so"}, b"/lib/some.so"),
        ([], {"SSH_SK_PROVIDER": "/lib/other.so"}, b"/lib/other.so"),
        ([], {}, b"internal"),
        ([], {"SSH_SK_PROVIDER": ""}, b""),
    ):
        (payload,) = same(*words, path.name, **environment)
        assert payload.endswith(b"sk-provider@openssh.com" + bytes((0, 0, 0, len(told))) + told)
    plain = certified(person, "plain")
    assert not any(b"sk-provider" in payload for payload in same("-S", "/lib/x.so", plain.name))


@pytest.mark.usefixtures("known")
def test_destinations(same: Sent, person: Person) -> None:
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    both = ("-H", "named", "-H", "hashed", "-H", "missing")
    for good in (
        ["-h", "alpha"],
        ["-h", "ALPHA"],
        ["-h", "me@10.0.0.2", "-h", "alpha>10.0.0.1"],
        ["-h", "[beta]:2222>me@[hidden]:2222"],
        ["-h", "hidden"],
        ["-h", "x.example>y.example"],
        ["-h", "*.example"],
        ["-h", "gamma.example"],
        ["-h", "delta.example"],
        ["-h", "me@"],
        ["-h", "alpha>me@"],
        ["-h", "@alpha"],
    ):
        (payload,) = same(*both, *good, "key")
        assert b"restrict-destination-v00@openssh.com" in payload, good
    for bad in (
        ["-h", "nowhere"],
        ["-h", "Hidden"],
        ["-h", "beta"],
        ["-h", "alpha", "-h", "nowhere"],
        ["-h", ""],
        ["-h", ">"],
        ["-h", ">alpha"],
        ["-h", "alpha>"],
        ["-h", "me@alpha>x.example"],
        ["-h", "@alpha>x.example"],
        ["-h", "alpha", "-H", "~nobody-of-this-name/known"],
    ):
        assert same(*both, *bad, "key") == [], bad


def test_a_user_name_with_an_at(agent: Recorder, person: Person) -> None:
    """OpenSSH 10.0 and later; before, the host began at the first @."""
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    person.file("known", f"alpha {(person.home / 'key.pub').read_text()}")
    _, (payload,) = agent.run("kagent-add", "-H", "known", "-h", "me@realm@alpha", "key")
    assert b"\0\0\0\x08me@realm\0\0\0\x05alpha" in payload


@pytest.mark.usefixtures("known")
def test_pkcs11(same: Sent) -> None:
    library, pin = "/lib/some.so", "1234\n"
    for words, answer, kind in (
        (["-s", library], pin, Type.ADD_SMARTCARD_KEY),
        (["-q", "-s", library], "", Type.ADD_SMARTCARD_KEY),
        (["-s", "/lib/other.so", "-s", library], pin, Type.ADD_SMARTCARD_KEY),
        (["-t", "5", "-s", library], pin, Type.ADD_SMARTCARD_KEY_CONSTRAINED),
        (["-c", "-v", "-s", library], pin, Type.ADD_SMARTCARD_KEY_CONSTRAINED),
        (["-H", "named", "-h", "alpha", "-s", library], pin, Type.ADD_SMARTCARD_KEY_CONSTRAINED),
        ([*MANY, "-s", library], pin, Type.ADD_SMARTCARD_KEY_CONSTRAINED),
        (["-e", library], "", Type.REMOVE_SMARTCARD_KEY),
        (["-s", library, "-d"], "", Type.REMOVE_SMARTCARD_KEY),
        (["-e", "/lib/other.so", "-s", library], "", Type.REMOVE_SMARTCARD_KEY),
    ):
        (payload,) = same(*words, input=answer)
        assert payload.startswith(bytes((kind, 0, 0, 0, len(library))) + library.encode()), words


def test_pkcs11_without_a_pin(agent: Recorder) -> None:
    """As ssh-add since OpenSSH 10.6: a token that has keys of its own asks for it there."""
    told = [
        agent.run(program, "-P", "-s", "/lib/some.so", input="1234\n")
        for program in (programs() / "ssh-add", "kagent-add")
    ]
    (theirs, [sent_by_them]), (ours, [sent_by_us]) = told
    assert sent_by_us == sent_by_them == encode(AddSmartcardKey("/lib/some.so", ""))[4:]
    assert ours.stderr == theirs.stderr == "Card added: /lib/some.so\n"


def test_certificates_for_pkcs11(agent: Recorder, person: Person) -> None:
    """OpenSSH 9.7 and later."""
    path = certified(person, "key")
    words = ("-s", "/lib/some.so", f"{path}-cert.pub", f"{path}.pub")
    blobs = tuple(keyfiles.public_key(name)[0].blob for name in words[2:])
    for options, constraints in (
        ([], (AssociatedCertificates(False, blobs),)),
        (["-C", "-t", "5"], (Lifetime(5), AssociatedCertificates(True, blobs))),
        (["-k", "--confirm-forwarded"], (ConfirmForwarded(),)),
    ):
        told, (payload,) = agent.run("kagent-add", *options, *words, input="1234\n")
        assert decode(payload) == AddSmartcardKeyConstrained("/lib/some.so", "1234", constraints)
        assert told.stderr.endswith("Card added: /lib/some.so\n")
    agent.answer = FAILURE
    told, _ = agent.run("kagent-add", *words, input="1234\n")
    assert told.returncode == 1
    assert 'Could not add card "/lib/some.so": agent refused operation\n' in told.stderr
    told, sent = agent.run("kagent-add", *words, "missing")
    assert (told.returncode, sent) == (255, [])
    assert "load certificate missing: No such file or directory" in told.stderr


def test_requests_about_the_whole_agent(same: Sent) -> None:
    assert [payload[0] for payload in same("-D")] == [
        Type.REMOVE_ALL_IDENTITIES,
        Type.REMOVE_ALL_RSA_IDENTITIES,
    ]
    assert same("-l") == same("-L")
    assert same("-x", input="geheim\ngeheim\n") == [b"\x16\0\0\0\x06geheim"]
    assert same("-x", input="geheim\nandere\n") == []
    assert same("-X", input="geheim\n") == [b"\x17\0\0\0\x06geheim"]
    assert same("-X", input="") == [b"\x17\0\0\0\0"]


def test_a_refusing_agent(same: Sent, agent: Recorder, person: Person) -> None:
    path = certified(person, "key")
    for answer in (FAILURE, b"\0\0\0\1\x66", b"\0\0\0\1\x1e", b"\0\0\0\1\xff", b"\0\0\0\0"):
        agent.answer = answer
        same(path.name)
        same("-d", path.name)
        same("-l")
        same("-D")
        same("-X", input="geheim\n")


def test_kagents_own_constraints(agent: Recorder, person: Person) -> None:
    person.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    for custody in ("kernel", "sealed"):
        words = ("--custody", custody, "--confirm-forwarded", "-t", "5", "key")
        told, (payload,) = agent.run("kagent-add", *words)
        message = decode(payload)
        assert isinstance(message, AddIdConstrained)
        wanted = (Lifetime(5), RequireCustody(custody), ConfirmForwarded())
        assert message.constraints == wanted
        assert "each use of the key from another machine" in told.stderr
    for bad in (["--custody", "device"], ["--custody"], ["--custom"], ["--confirm-forwarded=x"]):
        told, sent = agent.run("kagent-add", *bad, "key")
        assert (told.returncode, sent) == (1, [])


def test_extensions(agent: Recorder) -> None:
    """OpenSSH 10.1 and later have -Q."""
    names = ("session-bind@openssh.com", "other@example.com")
    contents = b"".join(TEXT.write(name) for name in names)
    agent.answer = encode(ExtensionResponse("query", contents))
    told, sent = agent.run("kagent-add", "-Q")
    assert told.stdout.splitlines() == list(names)
    assert (told.stderr, told.returncode) == ("", 0)
    assert sent == [b"\x1b\0\0\0\x05query"]
    for answer, reason in (
        (FAILURE, "agent refused operation"),
        (SUCCESS, "invalid format"),
        (encode(ExtensionResponse("other", contents)), "invalid format"),
        (encode(ExtensionResponse("query", b"\0\0\0\1")), "invalid format"),
    ):
        agent.answer = answer
        told, _ = agent.run("kagent-add", "-Q")
        assert told.returncode == 255
        assert told.stderr == f"unable to query supported extensions: {reason}\n"
    assert agent.run("kagent-add", "-Q", "-l")[0].returncode == 255
