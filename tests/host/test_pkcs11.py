"""Keys of PKCS#11 tokens in the agent: SoftHSM is the token, OpenSSH's programs are the judges."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.openssh import pkcs11helper
from kagent.openssh.pkcs11helper import Broken, Helper
from kagent.protocol.constraints import AssociatedCertificates, Lifetime, SkProvider
from kagent.protocol.messages import (
    SESSION_BIND,
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    Extension,
    RemoveSmartcardKey,
    SignRequest,
    decode,
    encode,
)
from kagent.protocol.publickey import parse_line
from tests.machine.openssh import programs
from tests.support.frames import FAILURE, SUCCESS, ask, explained
from tests.support.programs import Agent, Person, agent, children_of, sshd, wait_until
from tests.support.softhsm import (
    LIBRARY,
    PIN,
    REAL_HELPER,
    SoftToken,
    copy_of_library,
    soft_token,
    stand_in,
    with_pin,
)

ANY_PROVIDER = "-P*"


@pytest.fixture
def token(person: Person) -> SoftToken:
    return soft_token(person, "rsa", "ecdsa")


@pytest.fixture
def running(person: Person, token: SoftToken) -> Iterator[Agent]:
    with agent(person, "kagent", ANY_PROVIDER, env=token.env) as one:
        yield one


def insert(running: Agent, *words: str | Path, program: str = "ssh-add", pin: str = PIN) -> None:
    running.run(program, "-q", *(words or ("-s", LIBRARY)), **with_pin(running.person, pin))


def kinds(running: Agent) -> list[str]:
    listed = running.run("ssh-add", "-l", check=False).stdout.splitlines()
    return [line.split()[-1] for line in listed if line.endswith(")")]


def helpers(running: Agent) -> list[int]:
    """OpenSSH's, below the token processes."""
    below = [pid for child in children_of(running.keeper) for pid in children_of(child)]
    return [pid for pid in below if b"pkcs11-helper" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("name", ["rsa", "ecdsa", "ecdsa384"])
def test_login_and_signed_file(person: Person, folder: Path, name: str) -> None:
    token = soft_token(person, name)
    public = (person.home / f"{name}.pub").read_text()
    with (
        sshd(person, folder / "sshd", public) as server,
        agent(person, env=token.env) as running,
    ):
        insert(running)
        assert running.run("ssh-add", "-L").stdout.split()[:2] == public.split()[:2]
        for tester in ("ssh-add", "kagent-add"):
            running.run(tester, "-T", f"{name}.pub")
        told = running.run(*server.ssh(person), "echo", "hello")
        assert told.stdout == "hello\n"
        person.file("message", "a message\n")
        person.file("allowed", f"me {public}")
        running.run("ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", f"{name}.pub", "message")
        words = ["-n", "file", "-I", "me", "-f", "allowed", "-s", "message.sig"]
        person.run("ssh-keygen", "-Y", "verify", *words, input="a message\n")
        assert f'custody="token {LIBRARY}"' in running.logged()


def test_the_newest_helper(person: Person) -> None:
    """It signs what is given whole, and with Ed25519, too."""
    names = ["ecdsa", "ed25519", "rsa"]
    token = soft_token(person, *names)
    helper = {"SSH_PKCS11_HELPER": str(programs() / "ssh-pkcs11-helper")}
    with agent(person, env=token.env | helper) as running:
        insert(running)
        assert sorted(kinds(running)) == [f"({name.upper()})" for name in names]
        public = [f"{name}.pub" for name in names]
        running.run("ssh-add", "-T", *public)
        running.run(programs() / "ssh-add", "-T", *public)
    with agent(person, env=token.env) as running:
        insert(running)
        assert sorted(kinds(running)) == ["(ECDSA)", "(RSA)"]


def test_the_same_answers(person: Person, token: SoftToken) -> None:
    """Which providers are taken, and what becomes of their keys."""
    link = person.home / "link.so"
    link.symlink_to(LIBRARY)
    told: list[list[object]] = []
    for program in ("ssh-agent", "kagent"):
        said: list[object] = []
        for allowed in ([], [f"-P{LIBRARY}"], ["-P*,!*.so"], ["-P*/link.so"]):
            with agent(person, program, *allowed, env=token.env) as running:
                for words, pin in (
                    (["-s", LIBRARY], "wrong"),
                    (["-s", LIBRARY], ""),
                    (["-s", LIBRARY], PIN),
                    (["-l"], ""),
                    (["-T", "rsa.pub", "ecdsa.pub"], ""),
                    (["-e", link], ""),
                    (["-L"], ""),
                    (["-s", link], PIN),
                    (["-L"], ""),
                    (["-d", "rsa.pub"], ""),
                    (["-l"], ""),
                    (["-D"], ""),
                    (["-s", "/nowhere.so"], PIN),
                    (["-e", "/nowhere.so"], ""),
                    (["-l"], ""),
                ):
                    done = running.run("ssh-add", *words, check=False, **with_pin(person, pin))
                    # SoftHSM lists its keys in no particular order.
                    listed = sorted(done.stdout.splitlines())
                    said.append((words, done.returncode, listed, done.stderr))
        told.append(said)
    assert told[0] == told[1]


def test_a_wrong_pin_is_told(running: Agent) -> None:
    pin = with_pin(running.person, "another PIN")
    told = running.run("kagent-add", "-s", LIBRARY, check=False, **pin)
    assert told.returncode == 1
    assert "the PIN is wrong" in told.stderr


def test_where_the_keys_live_is_told(running: Agent) -> None:
    insert(running, "-t", "600", "-c", "-s", LIBRARY)
    where = f"custody token {LIBRARY}"
    listed = running.run("kagent-add", "-l", "-v").stdout.splitlines()
    assert [line.strip() for line in listed[1::2]] == [where, where]
    shown = running.run("kagentctl", "show").stdout
    assert shown.count(f"{where}; ") == 2
    assert shown.count("s left; confirm each use") == 2
    told = running.run("kagent-add", "-v", "-s", LIBRARY, **with_pin(running.person))
    assert told.stderr.count(f"is held in {where}") == 2
    # Loaded again: under what is asked for now, and by one helper.
    assert "confirm" not in running.run("kagentctl", "show").stdout
    wait_until(lambda: len(helpers(running)) == 1)


def test_confirmation(person: Person, token: SoftToken) -> None:
    env = {"DISPLAY": ":9", "SSH_ASKPASS": str(person.file("asked", "#!/bin/sh\nexit 1\n", 0o700))}
    with agent(person, "kagent", env={**token.env, **env}) as running:
        insert(running, "-c", "-s", LIBRARY)
        assert running.run("ssh-add", "-T", "rsa.pub", check=False).returncode == 1
        assert "result=refused" in running.logged()
        person.file("asked", "#!/bin/sh\nexit 0\n", 0o700)
        running.run("ssh-add", "-T", "rsa.pub")


@pytest.mark.parametrize("only", [False, True], ids=["with keys", "certificates only"])
def test_certificates(running: Agent, folder: Path, only: bool) -> None:
    """Those that aren't for a key of the token, and what is no certificate, are passed over."""
    person = running.person
    authority, other = person.key("ca"), person.key("other")
    names = ["rsa.pub", "ecdsa.pub", "other.pub"]
    person.run("ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", person.name, *names)
    certificates = ["rsa-cert.pub", "ecdsa-cert.pub", "other-cert.pub", f"{other}.pub"]
    words = ["-s", LIBRARY, *certificates]
    insert(running, *(["-C"] if only else []), *words, program="kagent-add")
    expected = ["(RSA-CERT)", "(ECDSA-CERT)"] if only else ["(RSA-CERT)", "(RSA)", "(ECDSA-CERT)"]
    assert sorted(kinds(running)) == sorted([*expected, *([] if only else ["(ECDSA)"])])
    running.run("kagent-add", "-T", "rsa-cert.pub", "ecdsa-cert.pub")
    authorized = f"cert-authority {(person.home / 'ca.pub').read_text()}"
    options = ["-i", "ecdsa.pub", "-o", "CertificateFile=ecdsa-cert.pub"]
    with sshd(person, folder / "sshd", authorized) as server:
        told = running.run(*server.ssh(person, *options), "echo", "hello")
    assert told.stdout == "hello\n"
    running.run("kagent-add", "-q", "-e", LIBRARY)
    assert kinds(running) == []


def test_from_afar(person: Person, token: SoftToken) -> None:
    """A host that the agent is forwarded to may not have a library loaded here."""
    adding = encode(AddSmartcardKey(str(LIBRARY), PIN))
    for options, answer in (([], FAILURE), (["-Oallow-remote-pkcs11"], SUCCESS)):
        with (
            agent(person, "kagent", *options, env=token.env) as running,
            running.connect() as stream,
        ):
            ask(stream, encode(Extension(SESSION_BIND, b"no proof")))
            assert ask(stream, adding) == answer
            if answer == FAILURE:
                assert "allow-remote-pkcs11" in explained(stream)


def test_from_afar_nothing_is_replaced(person: Person, token: SoftToken) -> None:
    """A host that may have a library loaded can't lift a confirmation, nor remove what is held."""
    authority = person.key("ca")
    person.run("ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", person.name, "rsa.pub")
    certificate, _ = parse_line((person.home / "rsa-cert.pub").read_text())
    only = AssociatedCertificates(True, (certificate.blob,))
    with (
        agent(person, "kagent", "-Oallow-remote-pkcs11", env=token.env) as running,
        running.connect() as stream,
    ):
        insert(running, "-c", "-s", LIBRARY)
        ask(stream, encode(Extension(SESSION_BIND, b"no proof")))
        assert ask(stream, encode(AddSmartcardKey(str(LIBRARY), PIN))) == FAILURE
        assert "was held already" in explained(stream)
        message = AddSmartcardKeyConstrained(str(LIBRARY), PIN, (only,))
        assert ask(stream, encode(message)) == SUCCESS
        assert sorted(kinds(running)) == ["(ECDSA)", "(RSA)", "(RSA-CERT)"]
        assert running.run("kagentctl", "show").stdout.count("confirm each use") == 2


def test_what_is_not_for_tokens(running: Agent) -> None:
    """Constraints that can't be kept, and a custody that can't be had, are refused."""
    with running.connect() as stream:
        for constraint in (SkProvider("/lib/some.so"), Lifetime(0)):
            message = AddSmartcardKeyConstrained(str(LIBRARY), PIN, (constraint,))
            assert ask(stream, encode(message)) == FAILURE
        assert ask(stream, encode(AddSmartcardKey(str(LIBRARY), "1" * 20000))) == FAILURE
        assert "10240 bytes" in explained(stream)
        # As ssh-agent, which reads constraints in either message.
        message = AddSmartcardKey(str(LIBRARY), PIN, (Lifetime(600),))
        assert ask(stream, encode(message)) == SUCCESS
        assert running.run("kagentctl", "show").stdout.count("s left") == 2
        assert ask(stream, encode(RemoveSmartcardKey(str(LIBRARY), PIN))) == SUCCESS
        assert ask(stream, encode(RemoveSmartcardKey(str(LIBRARY), ""))) == FAILURE
    for words in (["--custody", "sealed"], ["--custody", "kernel"]):
        told = running.run(
            "kagent-add", *words, "-s", LIBRARY, check=False, **with_pin(running.person)
        )
        assert told.returncode == 1
        assert "can't be held in custody" in told.stderr


def test_all_ways_to_remove_end_the_helper(running: Agent) -> None:
    def removed(*words: str | Path) -> None:
        insert(running)
        assert len(helpers(running)) == 1
        if words:
            running.run("ssh-add", "-q", *words)
        else:
            os.kill(running.keeper, signal.SIGUSR1)
        wait_until(lambda: not helpers(running))
        assert kinds(running) == []

    removed("-e", LIBRARY)
    removed("-D")
    removed("-d", "rsa.pub", "ecdsa.pub")
    removed()
    insert(running, "-t", "1", "-s", LIBRARY)
    wait_until(lambda: not helpers(running))
    assert kinds(running) == []


def test_locked(running: Agent) -> None:
    insert(running)
    secret = with_pin(running.person, "lock")
    running.run("ssh-add", "-x", **secret)
    assert running.run("ssh-add", "-T", "rsa.pub", check=False).returncode == 1
    for words in (["-s", LIBRARY], ["-e", LIBRARY]):
        assert running.run("ssh-add", *words, check=False, **secret).returncode == 1
    running.run("ssh-add", "-X", **secret)
    running.run("ssh-add", "-T", "rsa.pub")


def test_a_pulled_token_and_a_helper_that_died(running: Agent) -> None:
    """Their keys stay listed, as in ssh-agent, and the refusals tell the one from the other."""
    insert(running)
    pulled = running.person.home / "pulled"
    shutil.move(running.person.home / "tokens", pulled)
    told = running.run("kagent-add", "-T", "rsa.pub", check=False)
    assert "the token didn't sign: it was pulled out" in told.stderr
    assert sorted(kinds(running)) == ["(ECDSA)", "(RSA)"]
    shutil.move(pulled, running.person.home / "tokens")
    insert(running)
    running.run("ssh-add", "-T", "rsa.pub")

    [helper] = helpers(running)
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: "ssh-add -s loads its keys again" in running.logged())
    told = running.run("kagent-add", "-T", "rsa.pub", check=False)
    assert "the process that talks to its token has ended" in told.stderr
    assert sorted(kinds(running)) == ["(ECDSA)", "(RSA)"]
    insert(running)
    running.run("ssh-add", "-T", "rsa.pub", "ecdsa.pub")


def test_the_front_dies(running: Agent) -> None:
    """Its keys go on, as all others do."""
    insert(running)
    front = running.front
    os.kill(front, signal.SIGKILL)
    wait_until(lambda: running.front != front)
    running.run("ssh-add", "-T", "rsa.pub", "ecdsa.pub")


def test_a_key_that_is_held_otherwise(running: Agent) -> None:
    """It stays as it was, as in ssh-agent, and that is told."""
    person = running.person
    key = person.key("third", "-t", "ecdsa", "-m", "PKCS8")
    running.run("ssh-add", "-q", "-c", key)
    SoftToken(person, {"SOFTHSM2_CONF": str(person.home / "softhsm2.conf")}).import_key("3rd", key)
    told = running.run("kagent-add", "-v", "-s", LIBRARY, **with_pin(person))
    assert "was held already, in custody sealed" in told.stderr
    assert "and stays as it was" in running.logged()
    assert running.run("kagentctl", "show").stdout.count("confirm each use") == 1
    # A second token with the same keys: nothing is new.
    copy = copy_of_library(person)
    told = running.run("kagent-add", "-s", copy, check=False, **with_pin(person))
    assert told.returncode == 1
    assert f"was held already, in custody token {LIBRARY}" in told.stderr
    wait_until(lambda: len(helpers(running)) == 1)


def test_another_token_at_the_same_provider(running: Agent) -> None:
    """What is loaded takes the place of all that the provider had; if it can't be, of nothing."""
    insert(running)
    person = running.person
    assert running.run("ssh-add", "-s", LIBRARY, check=False, **with_pin(person, "wrong")).stderr
    running.run("ssh-add", "-T", "rsa.pub", "ecdsa.pub")
    shutil.rmtree(person.home / "tokens")
    soft_token(person, "ecdsa384")
    insert(running)
    assert running.run("ssh-add", "-l").stdout.split()[0] == "384"
    assert kinds(running) == ["(ECDSA)"]


@pytest.fixture
def stood_in(person: Person, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """An agent whose helper is the stand-in; the parameter is how that behaves."""
    env = {"SSH_PKCS11_HELPER": str(stand_in(person, request.param))}
    with agent(person, env=env) as running:
        yield running


def load_public(running: Agent) -> list[Path]:
    """Load the stand-in's keys; files with their public halves."""
    insert(running)
    lines = running.run("ssh-add", "-L").stdout.splitlines()
    return [running.person.file(f"{n}.pub", f"{line}\n") for n, line in enumerate(lines)]


@pytest.mark.parametrize("stood_in", [""], indirect=True)
def test_helpers_of_openssh_10(stood_in: Agent) -> None:
    """They sign with Ed25519 as well; without a label the comment is the provider's path."""
    files = load_public(stood_in)
    assert kinds(stood_in) == ["(ED25519)", "(ECDSA)", "(RSA)"]
    assert stood_in.run("ssh-add", "-l").stdout.count(str(LIBRARY)) == 3
    for program in ("ssh-add", "kagent-add"):
        stood_in.run(program, "-T", *files)
    key, _ = parse_line(files[0].read_text())
    with stood_in.connect() as stream:
        # More than such a helper takes: it is not even asked.
        assert ask(stream, encode(SignRequest(key.blob, bytes(20000), 0))) == FAILURE
        assert "10240 bytes at most" in explained(stream)
    stood_in.run("ssh-add", "-T", *files)


WRONG = ("another", "other-data", "other-algorithm")


@pytest.mark.parametrize("stood_in", WRONG, indirect=True)
def test_wrong_signatures_go_to_nobody(stood_in: Agent) -> None:
    files = load_public(stood_in)
    key, _ = parse_line(files[2].read_text())
    with stood_in.connect() as stream:
        assert ask(stream, encode(SignRequest(key.blob, b"data", 2))) == FAILURE
        assert "no signature by this key" in explained(stream)


@pytest.mark.parametrize(
    "stood_in", ["die", "endless", "short", "long", "garbage", "twice", "talk"], indirect=True
)
def test_a_helper_that_answers_rubbish_is_ended(stood_in: Agent) -> None:
    """And the keeper, the front and other keys go on."""
    sealed = stood_in.person.key("sealed")
    stood_in.run("ssh-add", "-q", sealed)
    files = load_public(stood_in)[1:]
    assert stood_in.run("ssh-add", "-T", files[0], files[0], check=False).returncode == 1
    helper = int((stood_in.person.home / "helper.pid").read_text())
    wait_until(lambda: not Path(f"/proc/{helper}").exists())
    assert len(kinds(stood_in)) == 4
    stood_in.run("ssh-add", "-T", sealed)


@pytest.mark.parametrize(
    "stood_in",
    ["load-die", "load-endless", "load-short", "load-long", "load-garbage"],
    indirect=True,
)
def test_a_helper_that_lists_rubbish(stood_in: Agent) -> None:
    person = stood_in.person
    told = stood_in.run("kagent-add", "-s", LIBRARY, check=False, **with_pin(person))
    assert told.returncode == 1
    assert "kagent: ssh-pkcs11-helper: " in told.stderr
    assert kinds(stood_in) == []
    helper = int((person.home / "helper.pid").read_text())
    wait_until(lambda: not Path(f"/proc/{helper}").exists())


@pytest.mark.parametrize("stood_in", ["hang"], indirect=True)
def test_a_hanging_signature_holds_nobody_else_up(stood_in: Agent) -> None:
    person = stood_in.person
    sealed = person.key("sealed")
    stood_in.run("ssh-add", "-q", sealed)
    files = load_public(stood_in)
    helper = int((person.home / "helper.pid").read_text())
    key, _ = parse_line(files[1].read_text())
    with stood_in.connect() as stream:
        stream.sendall(encode(SignRequest(key.blob, b"data", 0)))
        stood_in.run("ssh-add", "-T", sealed)
        assert len(kinds(stood_in)) == 4
        stood_in.run("ssh-add", "-q", "-e", LIBRARY)
        wait_until(lambda: not Path(f"/proc/{helper}").exists())
        answer = stream.recv(5)
    assert answer == FAILURE


@pytest.mark.parametrize("stood_in", ["load-hang"], indirect=True)
def test_a_hanging_load_holds_nobody_else_up(stood_in: Agent) -> None:
    person = stood_in.person
    adding = encode(AddSmartcardKey(str(LIBRARY), PIN))
    with stood_in.connect() as stream:
        stream.sendall(adding)
        wait_until((person.home / "helper.pid").exists)
        sealed = person.key("sealed")
        stood_in.run("ssh-add", "-q", sealed)
        stood_in.run("ssh-add", "-T", sealed)
        stood_in.run("ssh-add", "-q", "-D")


def test_the_time_limit(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(person.home)
    monkeypatch.setattr(pkcs11helper, "_SECONDS", 0.01)
    monkeypatch.setenv("SSH_PKCS11_HELPER", str(stand_in(person, "load-hang")))
    helper = Helper()
    pin = memoryview(bytearray(b"1234"))
    with pytest.raises(Broken, match="hasn't answered"):
        helper.insert("/lib/some.so", pin)
    assert bytes(pin) == bytes(4)
    helper._process.kill()
    helper._process.wait()


def test_helpers_that_are_not_there(person: Person, token: SoftToken) -> None:
    for path in ("/nowhere", str(person.file("no program", "", 0o700))):
        env = {**token.env, "SSH_PKCS11_HELPER": path}
        with agent(person, env=env) as running:
            told = running.run("kagent-add", "-s", LIBRARY, check=False, **with_pin(person))
            assert told.returncode == 1
            assert "kagent: " in told.stderr


def test_what_a_provider_could_reach(person: Person, token: SoftToken) -> None:
    """A provider is foreign code: it possesses none of the agent's keyrings, nor a descriptor."""
    looks = "#!/bin/sh\nkeyctl show @s >reached 2>&1\nls -l /proc/$$/fd >>reached\n"
    looks += f"exec {REAL_HELPER}\n"
    env = {**token.env, "SSH_PKCS11_HELPER": str(person.file("helper", looks, 0o700))}
    with agent(person, env=env) as running:
        running.run("ssh-add", "-q", person.key("sealed"))
        insert(running)
        running.run("ssh-add", "-T", "rsa.pub")
    reached = (person.home / "reached").read_text()
    keyrings, _, descriptors = reached.partition("total")
    assert "keyring" in keyrings
    assert "kagent" not in keyrings
    # Its input and output.
    assert descriptors.count("socket:") == 2


def test_a_client_that_stops_in_the_middle(running: Agent) -> None:
    frame = encode(AddSmartcardKey(str(LIBRARY), PIN))
    for length in (5, 20, len(frame) - 1):
        with running.connect() as stream:
            stream.sendall(frame[:length])
    insert(running)
    assert decode(ask(running.connect(), encode(RemoveSmartcardKey(str(LIBRARY), "")))[4:])
