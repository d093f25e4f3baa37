"""Certificates that a command prints for a key, by an own CA, and logins with them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.protocol.messages import (
    IdentitiesAnswer,
    Lock,
    RemoveIdentity,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Unlock,
    decode,
    encode,
)
from kagent.protocol.publickey import PublicKey, parse_line
from tests.destinations.keys import A
from tests.destinations.requests import bind, forward
from tests.machine.openssh import programs
from tests.support.authority import Authority, shell
from tests.support.frames import FAILURE, LISTING, NOTHING, SUCCESS, ask, explained
from tests.support.manual import block
from tests.support.programs import RSA, Agent, Person, agent, sshd, wait_until
from tests.support.softhsm import LIBRARY, soft_token, with_pin
from tests.support.tokens import PROVIDER


@pytest.fixture
def authority(person: Person) -> Authority:
    return Authority.of(person)


def certificates(kagent: Agent) -> list[PublicKey]:
    """Those that are listed."""
    lines = kagent.run("ssh-add", "-L", check=False).stdout.splitlines()
    return [parse_line(line)[0] for line in lines if "-cert-v01@" in line]


def serials(kagent: Agent) -> list[int]:
    return [one.certificate.serial for one in certificates(kagent) if one.certificate]


def test_logins_over_several_renewals(person: Person, authority: Authority, folder: Path) -> None:
    """The server knows the CA and no key; each login has a certificate that is valid."""
    person.key("id")
    command = authority.issuing("id", life="-5m:+12s")
    authority.configure({"public": "id", "certificate": command})
    trusted = {"TrustedUserCAKeys": authority.public}
    with agent(person) as kagent, sshd(person, folder / "sshd", "", **trusted) as server:
        kagent.run("ssh-add", "id")
        while len(authority.runs) < 3:
            assert kagent.run(*server.ssh(person), "echo", "in").stdout == "in\n"
        log = server.log.read_text()
    for serial in range(1, 4):
        assert f" ID id of id (serial {serial}) CA ED25519" in log
    assert kagent.logged().count('certificate "id of id" for SHA256:') == 3


def test_a_certificate_is_listed_behind_its_key(person: Person, authority: Authority) -> None:
    """A key of each kind, of which the kernel or a process signs; where it comes from is told."""
    names = {"one": RSA, "two": (), "three": ("-t", "ecdsa")}
    for name, options in names.items():
        person.key(name, *options)
    authority.configure(
        *({"public": one, "certificate": authority.issuing(one)} for one in ("three", "one"))
    )
    with agent(person) as kagent:
        kagent.run("ssh-add", *names)
        listed = [line.split()[-1] for line in kagent.run("ssh-add", "-l").stdout.splitlines()]
        assert listed == ["(RSA)", "(RSA-CERT)", "(ED25519)", "(ECDSA)", "(ECDSA-CERT)"]
        for key in certificates(kagent):
            person.file("listed.pub", key.line())
            kagent.run("ssh-add", "-T", "listed.pub")
        assert sorted(authority.runs) == ["one", "three"]
        told = kagent.run("kagent-add", "-l", "-v").stdout
        assert told.count("certificate printed by issue, valid until 20") == 2
        assert "certificate printed by issue" in kagent.run("kagentctl", "show").stdout


def test_for_a_key_of_an_agent_behind(person: Person, authority: Authority) -> None:
    """Which signs; kagent holds nothing of it."""
    person.key("id")
    authority.configure({"public": "id", "certificate": authority.issuing("id")})
    with (
        agent(person, "ssh-agent") as other,
        agent(person, "kagent", "--behind", other.socket) as kagent,
    ):
        other.run("ssh-add", "-q", "id")
        [certificate] = certificates(kagent)
        person.file("listed.pub", certificate.line())
        kagent.run("ssh-add", "-T", "listed.pub")
        other.run("ssh-add", "-D")
        assert certificates(kagent) == []
        assert kagent.run("ssh-add", "-T", "listed.pub", check=False).returncode == 1


@pytest.mark.parametrize("name", ["rsa", "ecdsa"])
def test_for_a_key_of_a_pkcs11_token(
    person: Person, authority: Authority, folder: Path, name: str
) -> None:
    """The token signs; the certificate goes and comes with its key."""
    token = soft_token(person, name)
    authority.configure({"public": name, "certificate": authority.issuing(name)})
    trusted = {"TrustedUserCAKeys": authority.public}
    with (
        agent(person, env=token.env) as kagent,
        sshd(person, folder / "sshd", "", **trusted) as server,
    ):
        kagent.run("ssh-add", "-q", "-s", LIBRARY, **with_pin(person))
        [certificate] = certificates(kagent)
        assert kagent.run(*server.ssh(person), "echo", "in").stdout == "in\n"
        assert f'custody="token {LIBRARY}"' in kagent.logged()
        person.file("listed.pub", certificate.line())
        kagent.run("ssh-add", "-q", "-e", LIBRARY)
        assert certificates(kagent) == []
        # Nobody can be asked here, so what is under the key's constraints doesn't sign.
        kagent.run("ssh-add", "-q", "-c", "-s", LIBRARY, **with_pin(person))
        assert len(certificates(kagent)) == 1
        assert kagent.run("ssh-add", "-T", "listed.pub", check=False).returncode == 1


@pytest.mark.parametrize("kind", ["ed25519-sk", "ecdsa-sk"])
def test_for_a_fido_key(person: Person, authority: Authority, folder: Path, kind: str) -> None:
    person.run("ssh-keygen", "-q", "-t", kind, "-w", PROVIDER, "-N", "", "-f", "id")
    authority.configure({"public": "id", "certificate": authority.issuing("id")})
    trusted = {"TrustedUserCAKeys": authority.public}
    with (
        agent(person, "kagent", f"-P{PROVIDER}") as kagent,
        sshd(person, folder / "sshd", "", **trusted) as server,
    ):
        kagent.run("ssh-add", "-q", "-S", PROVIDER, "id")
        assert len(certificates(kagent)) == 1
        assert kagent.run(*server.ssh(person), "echo", "in").stdout == "in\n"
        assert f" {kind.upper()}-CERT " in server.log.read_text()


def test_what_commands_can_do_wrong(person: Person, authority: Authority) -> None:
    """Each is told once, and keeps nobody waiting for long; the keys are listed and sign."""
    person.key("good")
    wrong = {
        "fails": (shell("exit 3"), "ended with exit code 3"),
        "missing": (["/nowhere/at/all"], "can't be started: No such file"),
        "nothing": (["true"], "0 lines, not one"),
        "garbage": (shell("echo what is this"), "not base64"),
        "bytes": (shell("head -c 1000 /dev/urandom"), "has printed is of no use"),
        "endless": (shell("yes"), "printed more than 32768 bytes"),
        "hangs": (shell("exec sleep 1000"), ""),
        "plain": (shell("cat plain.pub"), "a plain key and no certificate"),
        "another": (authority.issuing("good"), "a certificate for another key"),
        "host": (authority.issuing("host", "-h"), "a certificate for hosts"),
        "over": (authority.issuing("over", life="-2h:-1h"), "whose time is over"),
        "early": (authority.issuing("early", life="+1h:+2h"), "isn't valid yet"),
        "forged": (
            shell("./issue forged -I id | awk '{ sub(/....$/, \"AAAA\", $2); print }'"),
            "has printed is of no use",
        ),
    }
    for name in wrong:
        person.key(name)
    configured = {name: command for name, (command, _) in wrong.items()}
    configured["good"] = authority.issuing("good")
    authority.configure(
        *({"public": name, "certificate": command} for name, command in configured.items())
    )
    with agent(person) as kagent:
        kagent.run("ssh-add", *configured)
        assert len(certificates(kagent)) == 1
        wait_until(lambda: kagent.logged().count("no new certificate") == len(wrong) - 1)
        ran = len(authority.runs)
        assert len(certificates(kagent)) == 1
        assert len(authority.runs) == ran
        log = kagent.logged()
        assert log.count("no new certificate") == len(wrong) - 1
        for _, told in wrong.values():
            assert told in log
        for name in wrong:
            kagent.run("ssh-add", "-T", f"{name}.pub")
        shown = kagent.run("kagentctl", "show").stdout
        assert "no new certificate: " in shown
        assert "no new certificate" in kagent.run("kagentctl", "status").stdout


def test_one_that_fails_later_leaves_the_old_one(person: Person, authority: Authority) -> None:
    """As long as that is valid; then there is none."""
    person.key("id")
    command = authority.issuing("id", life="-5m:+8s")
    once = shell(f"[ ! -s runs ] && exec {' '.join(repr(one) for one in command)}")
    authority.configure({"public": "id", "certificate": once})
    with agent(person) as kagent:
        kagent.run("ssh-add", "id")
        assert serials(kagent) == [1]
        end = certificates(kagent)[0].certificate
        assert end
        while "no new certificate" not in kagent.logged():
            assert serials(kagent) == [1] or time.time() >= end.valid_before
        wait_until(lambda: serials(kagent) == [])
        assert kagent.logged().count("no new certificate") == 1


@pytest.fixture
def certified(person: Person, authority: Authority) -> Iterator[Agent]:
    """A kagent with the key `id`, for which a certificate is to be had."""
    person.key("id")
    authority.configure({"public": "id", "certificate": authority.issuing("id")})
    with agent(person) as kagent:
        yield kagent


def listed(frame: bytes) -> list[bytes]:
    answer = decode(frame[4:])
    assert isinstance(answer, IdentitiesAnswer)
    return [one.blob for one in answer.identities]


def test_on_a_forwarded_connection(certified: Agent, authority: Authority) -> None:
    """Another host has nothing run here; it sees the certificate that there is."""
    certified.run("ssh-add", "id")
    with certified.connect() as there, certified.connect() as here:
        ask(there, forward(A))
        ask(here, bind(A))
        assert len(listed(ask(there, LISTING))) == 1
        assert authority.runs == []
        assert len(listed(ask(here, LISTING))) == 2
        assert authority.runs == ["id"]
        assert len(listed(ask(there, LISTING))) == 2


def test_many_wait_for_one(certified: Agent, authority: Authority) -> None:
    certified.run("ssh-add", "id")
    streams = [certified.connect() for _ in range(10)]
    for stream in streams:
        stream.sendall(LISTING)
    for stream in streams:
        assert len(listed(ask(stream, encode(RequestIdentities())))) == 2
        stream.close()
    assert authority.runs == ["id"]


def test_it_goes_with_its_key(certified: Agent, authority: Authority) -> None:
    """Removed, locked or at its end: the certificate can do nothing that the key can't."""
    certified.run("ssh-add", "id")
    [certificate] = certificates(certified)
    request = encode(SignRequest(certificate.blob, b"data", 0))
    with certified.connect() as stream:
        assert isinstance(decode(ask(stream, request)[4:]), SignResponse)
        assert ask(stream, encode(RemoveIdentity(certificate.blob))) == FAILURE
        assert "printed by a command" in explained(stream)
        assert ask(stream, encode(Lock(b"word"))) == SUCCESS
        assert ask(stream, LISTING) == NOTHING
        assert ask(stream, request) == FAILURE
        assert ask(stream, encode(Unlock(b"word"))) == SUCCESS
        certified.run("ssh-add", "-d", "id")
        assert ask(stream, request) == FAILURE
        assert len(certificates(certified)) == 0
        certified.run("ssh-add", "-q", "-t", "1h", "id")
        assert serials(certified) == [2]
        certified.run("ssh-add", "-D")
        assert certified.run("ssh-add", "-L", check=False).returncode == 1
    assert authority.runs == ["id", "id"]


def test_under_the_constraints_of_its_key(
    person: Person, authority: Authority, folder: Path
) -> None:
    """A key that is for one host, and for which the user says no.

    By the newest ssh: an older one has the plain key sign for the certificate, which no agent does
    for a key that is limited to hosts.
    """
    newest = programs()
    person.key("id")
    authority.configure({"public": "id", "certificate": authority.issuing("id")})
    refusing = person.file("no", '#!/bin/sh\necho "$1" >>asked\nexit 1\n', mode=0o700)
    variables = {"SSH_ASKPASS": str(refusing), "SSH_ASKPASS_REQUIRE": "force"}
    trusted = {"TrustedUserCAKeys": authority.public}
    with (
        agent(person, env=variables) as kagent,
        sshd(person, folder / "one", "", programs=newest, **trusted) as one,
        sshd(person, folder / "two", "", programs=newest, **trusted) as two,
    ):
        known = person.file("known_hosts", (folder / "one/known_hosts").read_text())
        place = (folder / "one/known_hosts").read_text().split()[0]
        kagent.run("ssh-add", "-q", "-H", known, "-h", place, "id")
        assert kagent.run(*one.ssh(person), "echo", "in").stdout == "in\n"
        assert kagent.run(*two.ssh(person), "true", check=False).returncode == 255
        kagent.run("ssh-add", "-q", "-c", "id")
        assert kagent.run(*one.ssh(person), "true", check=False).returncode == 255
    assert (person.home / "asked").read_text().count("Allow use of key") == 1
    assert "the user said no" in kagent.logged()


def test_the_user_is_told_of_a_login(person: Person, authority: Authority, folder: Path) -> None:
    """Also where the plain key signs for the certificate, as an ssh of Debian 12 has it."""
    person.key("id")
    authority.configure({"public": "id", "certificate": authority.issuing("id")})
    program = person.file("yes", '#!/bin/sh\necho "$1" >>asked\n', mode=0o700)
    variables = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    trusted = {"TrustedUserCAKeys": authority.public}
    with agent(person, env=variables) as kagent, sshd(person, folder / "one", "", **trusted) as one:
        kagent.run("ssh-add", "-q", "-c", "id")
        assert kagent.run(*one.ssh(person), "echo", "in").stdout == "in\n"
        assert f"user={person.name} " in kagent.logged()
    asked = (person.home / "asked").read_text()
    assert f'Login as "{person.name}" on ' in asked
    assert "WARNING" not in asked


def test_what_a_command_could_reach(person: Person, authority: Authority) -> None:
    """No keyring of the agent's, no descriptor, and little of its environment."""
    looks = "exec >reached; keyctl show @s 2>&1; ls -l /proc/$$/fd; env; ps -o sid= -p $$; false"
    person.key("id")
    authority.configure({"public": "id", "certificate": shell(looks)})
    with agent(person, env={"SECRET": "word", "DISPLAY": ":7"}) as kagent:
        kagent.run("ssh-add", "-q", "id")
        assert certificates(kagent) == []
    keyrings, _, rest = (person.home / "reached").read_text().partition("total")
    assert "kagent" not in keyrings
    descriptors = [line.split(" -> ")[1] for line in rest.splitlines() if " -> " in line]
    # And its own script, in some shells.
    assert {"/dev/null", str(person.home / "reached")} >= {*descriptors} - {"/dev/tty"}
    assert "SECRET" not in rest
    assert "SSH_AUTH_SOCK" not in rest
    assert "DISPLAY=:7" in rest


READS = """
from kagent.protocol.publickey import parse_line
from kagent.jobs.questions import Certify
from kagent.workers import certify
def checked(*_):
    for attempt in (lambda: open("/etc/passwd"), lambda: __import__("os").fork()):
        try:
            attempt()
        except PermissionError:
            print("refused", flush=True)
    raise ValueError("seen")
certify._checked = checked
print(certify.certify(Certify(parse_line(open("id.pub").read())[0].blob)).reason)
"""


def test_what_it_has_printed_is_read_in_confinement(person: Person, authority: Authority) -> None:
    person.key("id")
    authority.configure({"public": "id", "certificate": ["echo", "anything"]})
    told = person.run(sys.executable, "-c", READS).stdout
    assert told == "refused\nrefused\nwhat echo has printed is of no use: seen\n"


def test_the_example_of_the_manual(person: Person, folder: Path) -> None:
    """As it stands in kagent(1), and then a login to who trusts that CA."""
    commands = block("kagent.1", "mkdir -p ~/.config/kagent")
    person.run("mkdir", "-m", "700", ".ssh")
    person.key(".ssh/id_ed25519")
    person.key("ca")
    trusted = {"TrustedUserCAKeys": str(person.home / "ca.pub")}
    with agent(person) as kagent, sshd(person, folder / "sshd", "", **trusted) as server:
        told = kagent.run("sh", "-euc", commands).stdout
        assert "kagent.toml: 0 settings, 1 identity\n" in told
        assert "certificate printed by certificate, valid until" in told
        assert kagent.run(*server.ssh(person), "echo", "in").stdout == "in\n"
