"""ssh-mldsa44-ed25519 with the newest OpenSSH, whatever this machine has."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kagent.private import composite
from kagent.private.keyfile import parse
from kagent.protocol.messages import SESSION_BIND, SignRequest, SignResponse, decode, encode
from tests.destinations.agents import DONE, REFUSED, SIGNED, AtSocket, outcome
from tests.destinations.keys import AUTHORITY, POST_QUANTUM, A, D, hop
from tests.destinations.requests import LIST, add, bind, login, sign
from tests.host.test_destinations import asking
from tests.host.test_destinations import name as name_of
from tests.machine.openssh import programs
from tests.support.frames import ask
from tests.support.programs import Agent, Person, Sshd, agent, sshd

TYPE = ("-t", "mldsa44-ed25519")
PROGRAMS = programs()
SSH_ADD, SSH_AGENT, SSH_KEYGEN = (
    PROGRAMS / name for name in ("ssh-add", "ssh-agent", "ssh-keygen")
)
SUITE = PROGRAMS.parent / "tree/usr/lib/openssh/regress/unittests"
ADDERS = (SSH_ADD, "kagent-add")


def keygen(person: Person, *words: str | Path) -> None:
    person.run(SSH_KEYGEN, "-q", *words)


def new_key(person: Person, name: str = "key", passphrase: str = "") -> Path:
    path = person.home / name
    keygen(person, *TYPE, "-N", passphrase, "-C", f"{name} käse", "-f", path)
    return path


def test_the_vectors_of_the_draft() -> None:
    text = (SUITE / "crypto/testdata/draft-ietf-lamps-pq-composite-sigs.json").read_text()
    vector = {name: base64.b64decode(value) for name, value in json.loads(text).items()}
    private = composite.PrivateKey.from_seeds(vector["sk"])
    assert private.public_key().public_bytes_raw() == vector["pk"]
    private.public_key().verify(vector["s"], vector["m"])


@pytest.mark.parametrize("adder", ADDERS)
def test_in_the_agent(kagent: Agent, adder: str | Path) -> None:
    """Loaded, listed, signed with and removed; as ssh-agent itself has it."""
    person = kagent.person
    path = new_key(person)
    with agent(person, SSH_AGENT) as stock:
        stock.run(SSH_ADD, path)
        expected = [stock.run(SSH_ADD, option).stdout for option in ("-l", "-L")]
    assert expected[0].startswith("512 SHA256:")
    assert expected[0].endswith(" key käse (MLDSA44-ED25519)\n")
    kagent.run(adder, path)
    for lister in ADDERS:
        assert [kagent.run(lister, option).stdout for option in ("-l", "-L")] == expected
        kagent.run(lister, "-T", path)
    assert "custody sealed" in kagent.logged()
    kagent.run(adder, "-d", path)
    assert kagent.run(adder, "-T", path, check=False).returncode == 1


def test_with_a_passphrase(kagent: Agent) -> None:
    path = new_key(kagent.person, passphrase="sesam")
    askpass = kagent.person.file("askpass", "#!/bin/sh\necho sesam\n", mode=0o700)
    kagent.run("kagent-add", path, SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    kagent.run(SSH_ADD, "-T", path)


def test_files_of_the_regression_tests(kagent: Agent) -> None:
    folder = SUITE / "sshkey/testdata"
    for name in ("mldsa44_ed25519_1", "mldsa44_ed25519_2"):
        kagent.run("kagent-add", kagent.person.file(name, folder / name))
        assert (folder / f"{name}.fp").read_text().strip() in kagent.run("kagent-add", "-l").stdout
    encrypted, plain = (
        parse((folder / name).read_bytes(), b"mekmitasdigoat")
        for name in ("mldsa44_ed25519_1_pw", "mldsa44_ed25519_1")
    )
    assert encrypted == plain


def test_no_byte_of_a_signature_can_be_another(kagent: Agent) -> None:
    """ssh-keygen verifies it as it came, and not with any byte changed."""
    person = kagent.person
    path = new_key(person)
    kagent.run(SSH_ADD, path)
    path.unlink()
    message = person.file("message", "what is signed\n")
    kagent.run(SSH_KEYGEN, "-Y", "sign", "-f", f"{path}.pub", "-n", "file", message)
    person.file("signers", f"me {path.with_suffix('.pub').read_text()}")
    verify = (SSH_KEYGEN, "-Y", "verify", "-f", "signers", "-I", "me", "-n", "file", "-s")

    def verified(signature: Path) -> bool:
        done = person.run(*verify, signature, input="what is signed\n", check=False)
        return done.returncode == 0

    good = person.home / "message.sig"
    assert verified(good)
    body = base64.b64decode("".join(good.read_text().splitlines()[1:-1]))
    for place in range(len(body) - 2484, len(body), 97):
        changed = bytearray(body)
        changed[place] ^= 1
        text = base64.encodebytes(changed).decode()
        marks = "-----{} SSH SIGNATURE-----"
        bad = person.file("bad", f"{marks.format('BEGIN')}\n{text}{marks.format('END')}\n")
        assert not verified(bad)


@pytest.fixture
def server(person: Person, folder: Path) -> Iterator[Sshd]:
    """A host with such a key, which takes the person's, and certificates by such an authority."""
    new_key(person)
    new_key(person, "ca")
    authorized = (person.home / "key.pub").read_text()
    authorized += f"cert-authority {(person.home / 'ca.pub').read_text()}"
    options = {"programs": PROGRAMS, "host_key": "mldsa44-ed25519"}
    # Not by itself, which is why agents take no host's certificate by such an authority.
    believing = {"CASignatureAlgorithms": "+ssh-mldsa44-ed25519"}
    with sshd(person, folder / "sshd", authorized, **options, **believing) as server:
        person.file("known_hosts", (server.folder / "known_hosts").read_text())
        yield server


def test_login(kagent: Agent, server: Sshd) -> None:
    """With the key, and with certificates by and for such keys."""
    person = kagent.person

    def accepted(name: str) -> str:
        options = ("-o", "IdentitiesOnly=yes", "-i", name)
        assert kagent.run(*server.ssh(person, *options), "echo", "hello").stdout == "hello\n"
        return re.findall("Accepted .*", server.log.read_text())[-1]

    kagent.run(SSH_ADD, "key")
    assert " MLDSA44-ED25519 SHA256:" in accepted("key.pub")
    person.key("other", "-t", "ed25519")
    for name, kind in (("key", "MLDSA44-ED25519"), ("other", "ED25519")):
        keygen(person, "-s", "ca", "-I", "me", "-n", person.name, f"{name}.pub")
        kagent.run(SSH_ADD, "-D")
        told = kagent.run("kagent-add", name).stderr
        assert f"Certificate added: {name}-cert.pub (me)" in told
        assert f"({kind}-CERT)" in kagent.run(SSH_ADD, "-l").stdout
        assert (person.home / f"{name}-cert.pub").read_text() in kagent.run(SSH_ADD, "-L").stdout
        told = accepted(f"{name}-cert.pub")
        assert f" {kind}-CERT SHA256:" in told
        assert " CA MLDSA44-ED25519 " in told


def test_for_one_host_only(kagent: Agent, server: Sshd) -> None:
    """A host's key that is in a destination constraint, and in ssh's session-bind."""
    person = kagent.person
    for adder in ADDERS:
        kagent.run(adder, "-H", "known_hosts", "-h", name_of(server), "key")
        assert kagent.run(*server.ssh(person), "echo", "hello").stdout == "hello\n"
        kagent.run(adder, "-D")
        kagent.run(adder, "-H", "known_hosts", "-h", "nobody@" + name_of(server), "key")
        assert kagent.run(*server.ssh(person), "true", check=False).returncode == 255
        kagent.run(adder, "-D")


def test_its_host_is_named_and_no_login_there_is_forwarded(person: Person, server: Sshd) -> None:
    env = asking(person)
    (person.home / ".ssh").mkdir(mode=0o700)
    person.file(".ssh/known_hosts", person.home / "known_hosts")
    with agent(person, env=env) as kagent:
        kagent.run("kagent-add", "--confirm-forwarded", "key")
        kagent.run(*server.ssh(person), "true")
        assert (person.home / "asked").read_text() == ""
        through = [*server.ssh(person, "-A"), shlex.join([*server.ssh(person), "true"])]
        kagent.run(*through)
        asked = (person.home / "asked").read_text()
        assert f"FORWARDED: the request comes from {name_of(server)}." in asked


def test_where_the_library_is_too_old(person: Person, server: Sshd) -> None:
    """As Debian's own are: what can't be held is refused, and a host is one that proves nothing."""
    code = "from kagent.private import composite\ncomposite.mldsa = None"
    with agent(person, env=person.changed_kagent(code)) as kagent:

        def why() -> dict[str, Any]:
            told = json.loads(kagent.run("kagentctl", "why", "--json").stdout)["refusals"][-1]
            assert "cryptography of version 48 or later, with OpenSSL 3.5" in told["reason"]
            assert told["next"]["command"] == "kagentctl doctor"
            return told  # type: ignore[no-any-return]

        assert kagent.run(SSH_ADD, "key", check=False).returncode == 1
        assert why()["request"] == "ADD_IDENTITY"
        kagent.run(*server.ssh(person, "-i", "key", "-o", "IdentitiesOnly=yes"), "true")
        assert why()["request"] == SESSION_BIND


def test_permitted_hops(person: Person) -> None:
    for program in (SSH_AGENT, "kagent"):
        with agent(person, program) as running, AtSocket(running.connect) as at:
            assert outcome(at.ask(0, add(hop(POST_QUANTUM)))) == DONE
            assert outcome(at.ask(0, bind(POST_QUANTUM))) == DONE
            assert outcome(at.ask(0, sign(login(POST_QUANTUM)))) == SIGNED
            assert outcome(at.ask(1, bind(A))) == DONE
            assert outcome(at.ask(1, LIST)) == ()
            assert outcome(at.ask(1, sign(login(A)))) == REFUSED
            # ssh doesn't take a host's certificate by such an authority, unless it is told to.
            certified = D.certified(POST_QUANTUM, "d")
            assert outcome(at.ask(2, add(hop(D, by=POST_QUANTUM)))) == DONE
            assert outcome(at.ask(2, bind(certified))) == DONE
            assert outcome(at.ask(2, sign(login(certified)))) == REFUSED
            certified = POST_QUANTUM.certified(AUTHORITY, "pq")
            assert outcome(at.ask(3, add(hop(POST_QUANTUM, by=AUTHORITY)))) == DONE
            assert outcome(at.ask(3, bind(certified))) == DONE
            assert outcome(at.ask(3, sign(login(certified)))) == SIGNED


def test_many_at_once(kagent: Agent) -> None:
    path = new_key(kagent.person)
    kagent.run(SSH_ADD, path)
    frame = encode(SignRequest(parse(path.read_bytes())[0].public_blob, bytes(250_000), 0))
    with kagent.connect() as stream:
        for _ in range(50):
            assert isinstance(decode(ask(stream, frame)[4:]), SignResponse)
