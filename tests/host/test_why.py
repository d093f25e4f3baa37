"""kagentctl why: what was refused, to whom, why, and what to do; by refusals of real programs."""

from __future__ import annotations

import json
import resource
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kagent.protocol.messages import (
    STATUS,
    WHY,
    AddIdConstrained,
    AddIdentity,
    Extension,
    Lock,
    encode,
)
from kagent.protocol.wire import BYTE, STRING, TEXT
from tests.destinations.keys import USERS_KEY, A
from tests.destinations.requests import bind, forward
from tests.hostile.asking import Pair
from tests.support.frames import FAILURE, SUCCESS, ask, explained
from tests.support.programs import BIN, Agent, Person, agent, sshd, wait_until
from tests.support.softhsm import LIBRARY, soft_token, with_pin

WHY_FRAME = encode(Extension(WHY, b""))


def told(running: Agent) -> list[dict[str, Any]]:
    """All that it tells of, to a program."""
    answer = json.loads(running.run("kagentctl", "why", "--json", "-n", "99").stdout)
    refusals: list[dict[str, Any]] = answer["refusals"]
    return refusals


def last(running: Agent) -> dict[str, Any]:
    return told(running)[-1]


def sign(running: Agent, key: Path) -> None:
    """A signature with that key, which is refused."""
    assert running.run("ssh-add", "-T", f"{key}.pub", check=False).returncode != 0


@contextmanager
def asking(person: Person, answer: int) -> Iterator[Agent]:
    """A kagent whose user always answers so."""
    program = person.file("askpass", f"#!/bin/sh\nexit {answer}\n", 0o700)
    env = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    with agent(person, env=env) as running:
        yield running


def test_kagent_add_names_it_once(kagent: Agent) -> None:
    """At the end, below what ssh-add says; of another agent it knows nothing."""
    person = kagent.person
    words = ["kagent-add", "-T", *(f"{person.key(name)}.pub" for name in ("one", "two"))]
    said = kagent.run(*words, check=False).stderr.splitlines()
    assert [line.split(" ")[0] for line in said] == ["Agent", "kagent:"] * 2 + ["kagent-add:"]
    assert "kagentctl why" in said[-1]
    assert "kagentctl why" not in kagent.run("kagent-add", "one").stderr
    with kagent.connect() as stream:
        assert ask(stream, encode(Lock(b"geheim"))) == SUCCESS
    query = kagent.run("kagent-add", "-Q", check=False)
    first, *reason = query.stderr.splitlines()
    assert (query.returncode, first) == (
        255,
        "unable to query supported extensions: agent refused operation",
    )
    assert reason == ["kagent: the agent is locked", said[-1]]
    with agent(person, "ssh-agent") as other:
        assert "kagentctl" not in other.run(*words, check=False).stderr


def test_in_words(kagent: Agent) -> None:
    """Which key, who asked, why, and what to type; and the log names the command that tells."""
    assert kagent.run("kagentctl", "why").stdout.startswith("Nothing was refused since this agent")
    key = kagent.person.key("id")
    fingerprint = kagent.person.run("ssh-keygen", "-l", "-f", key).stdout.split()[1]
    kagent.run("ssh-add", "-q", key)
    kagent.run("ssh-add", "-q", "-d", key)
    for _ in range(2):
        sign(kagent, key)
    heading, *lines = kagent.run("kagentctl", "why").stdout.splitlines()
    assert " a signature was refused (2 times): no such key: it was removed at 20" in heading
    assert lines[0].strip() == f"key   {fingerprint}"
    assert lines[1].strip().startswith("by    ssh-add ← ")
    assert lines[2].strip() == "next  ssh-add KEYFILE"
    assert "`kagentctl log` shows" in lines[-1]  # what a restart has made it forget
    assert "cause=removed" in kagent.logged()
    assert 'help="kagentctl why"' in kagent.logged()


def test_the_lock(kagent: Agent) -> None:
    """Locked, it tells nothing but what unlocks it; then what was refused meanwhile."""
    key = kagent.person.key("id")
    kagent.run("ssh-add", "-q", key)
    words = with_pin(kagent.person, "the passphrase")
    kagent.run("ssh-add", "-x", **words)
    sign(kagent, key)
    assert kagent.run("ssh-add", key, check=False).returncode != 0
    assert kagent.run("ssh-add", "-D", check=False).returncode != 0
    said = kagent.run("kagentctl", "why", check=False)
    assert (said.returncode, said.stdout) == (1, "")
    assert "the agent is locked" in said.stderr
    assert "ssh-add -X" in said.stderr
    with kagent.connect() as stream:
        assert ask(stream, WHY_FRAME) == FAILURE
    wrong = with_pin(kagent.person, "another")
    assert kagent.run("ssh-add", "-X", check=False, **wrong).returncode != 0
    kagent.run("ssh-add", "-X", **with_pin(kagent.person, "the passphrase"))
    assert kagent.run("ssh-add", "-X", check=False, **words).returncode != 0
    found = [(one["request"], one["cause"]) for one in told(kagent)]
    assert ("SIGN_REQUEST", "locked") in found
    assert ("ADD_IDENTITY", "locked") in found
    assert ("REMOVE_ALL_IDENTITIES", "locked") in found
    assert (WHY, "locked") in found
    assert ("UNLOCK", "wrong-passphrase") in found
    assert found[-1] == ("UNLOCK", "not-locked")
    assert last(kagent)["next"]["command"] == "ssh-add -l"


def test_a_lifetime_that_is_over(kagent: Agent) -> None:
    """Also of a front before this one."""
    key = kagent.person.key("id")
    kagent.run("ssh-add", "-q", "-t", "3", key)
    front = kagent.front
    kagent.person.run("kill", "-9", str(front))
    wait_until(lambda: kagent.run("ssh-add", "-l", check=False).returncode == 1)
    sign(kagent, key)
    one = last(kagent)
    assert one["cause"] == "expired"
    assert "its lifetime ended at 20" in one["reason"]
    assert one["next"]["command"] == "ssh-add -t 8h KEYFILE"


def test_a_key_that_was_not_used(kagent: Agent) -> None:
    """Told from one whose lifetime is over, also where it has both; each use puts it off."""
    key, other = kagent.person.key("id"), kagent.person.key("other")
    kagent.run("kagent-add", "-q", "--idle", "2s", "-t", "1h", key)
    kagent.run("kagent-add", "-q", "--idle", "1h", "-t", "2s", other)
    assert "s left if it isn't used" in kagent.run("kagentctl", "show").stdout
    wait_until(lambda: kagent.run("ssh-add", "-l", check=False).returncode == 1)
    sign(kagent, key)
    one = last(kagent)
    assert one["cause"] == "unused"
    assert "as it was not used for long enough, it was removed at 20" in one["reason"]
    assert one["next"]["command"].startswith("kagent-add --idle ")
    sign(kagent, other)
    assert last(kagent)["cause"] == "expired"


def test_a_key_that_never_was_there(kagent: Agent) -> None:
    key = kagent.person.key("id")
    sign(kagent, key)
    assert last(kagent)["cause"] == "unknown-key"
    kagent.run("ssh-add", "-d", f"{key}.pub", check=False)
    one = last(kagent)
    assert (one["request"], one["cause"]) == ("REMOVE_IDENTITY", "unknown-key")
    assert one["by"].startswith("ssh-add ← ")


def test_the_user_says_no(person: Person) -> None:
    key = person.key("id")
    with asking(person, 1) as running:
        running.run("ssh-add", "-q", "-c", key)
        sign(running, key)
        one = last(running)
        assert (one["cause"], one["comment"]) == ("denied", "id käse")
    for variables, cause, step in (
        ({"SSH_ASKPASS_REQUIRE": "never"}, "cannot-ask", 'eval "$(kagent -s)"'),
        ({"SSH_ASKPASS_REQUIRE": "force", "SSH_ASKPASS": "/no"}, "no-askpass", "sudo apt-get "),
    ):
        with agent(person, env=variables) as running:
            running.run("ssh-add", "-q", "-c", key)
            sign(running, key)
            one = last(running)
            assert one["cause"] == cause
            assert one["next"]["command"].startswith(step)


def test_another_host(person: Person, folder: Path) -> None:
    """A login as a user whom the key isn't for; and a signature that is no login."""
    key = person.key("id")
    with (
        sshd(person, folder / "one", Path(f"{key}.pub").read_text()) as one,
        agent(person) as running,
    ):
        words = ["-H", one.folder / "known_hosts", "-h", f"nobody@[127.0.0.1]:{one.port}"]
        running.run("ssh-add", "-q", *words, key)
        key.unlink()  # or ssh would take that
        assert running.run(*one.ssh(person), "true", check=False).returncode
        refusal = last(running)
        assert (refusal["cause"], refusal["user"]) == ("other-host", person.name)
        assert refusal["by"].startswith("ssh ← ")
        sign(running, key)
        assert last(running)["cause"] == "no-host"


def test_a_token(person: Person) -> None:
    token = soft_token(person, "ecdsa")
    with agent(person, env=token.env) as running:
        words = ["ssh-add", "-s", LIBRARY]
        assert running.run(*words, check=False, **with_pin(person, "wrong")).returncode
        one = last(running)
        assert (one["request"], one["cause"]) == ("ADD_SMARTCARD_KEY", "pin")
        assert str(LIBRARY) in one["reason"]
    with agent(person, "kagent", "-P/nowhere/*", env=token.env) as running:
        assert running.run(*words, check=False, **with_pin(person)).returncode
        assert last(running)["cause"] == "provider"
        assert last(running)["next"]["command"].startswith("kagent -P ")
        running.run("ssh-add", "-e", LIBRARY, check=False, **with_pin(person))
        assert (last(running)["request"], last(running)["cause"]) == (
            "REMOVE_SMARTCARD_KEY",
            "unknown-key",
        )


def test_keys_that_can_not_be_held(kagent: Agent) -> None:
    key = kagent.person.key("id")
    kagent.run("kagent-add", "--custody", "kernel", key, check=False)
    one = last(kagent)
    assert one["cause"] == "kernel-signs-not"
    assert one["comment"] == "id käse"
    assert one["fingerprint"].startswith("SHA256:")
    three = kagent.person.home / "three"
    kagent.person.run("openssl", "genrsa", "-primes", "3", "-out", three, "2048")
    for program in ("ssh-add", "kagent-add"):
        told = kagent.run(program, three, check=False)
        assert told.returncode != 0
    assert "an RSA key of more than two primes is not supported" in told.stderr
    assert last(kagent)["cause"] == "key-type"
    with kagent.connect() as stream:
        assert ask(stream, encode(Extension("no-such@extension", b""))) == FAILURE
        assert last(kagent)["cause"] == "unsupported"
        assert last(kagent)["request"] == "no-such@extension"
        empty = STRING.write(BYTE.write(17) + TEXT.write("no-such-type"))
        assert ask(stream, empty) == FAILURE
        assert last(kagent)["cause"] == "key-type"


def test_a_constraint_of_another_agent(kagent: Agent) -> None:
    """Whatever it says, the key isn't held without it."""
    frame = encode(AddIdConstrained(USERS_KEY.named(), "a key", ()))[4:]
    unknown = STRING.write(frame + BYTE.write(255) + TEXT.write("no-such@constraint"))
    with kagent.connect() as stream:
        assert ask(stream, unknown) == FAILURE
    one = last(kagent)
    assert one["cause"] == "constraint"
    assert "no-such@constraint" in one["reason"]


def test_other_hosts_are_not_told(kagent: Agent, folder: Path) -> None:
    """What was refused names keys and hosts that a host on the way has nothing to do with."""
    person = kagent.person
    key = person.key("id")
    with sshd(person, folder / "one", Path(f"{key}.pub").read_text()) as one:
        kagent.run("ssh-add", "-q", key)
        command = shlex.join([str(BIN / "kagentctl"), "why"])
        said = kagent.run(*one.ssh(person, "-A"), command, check=False)
    assert said.returncode == 1
    assert "is not told to other hosts" in said.stderr
    with kagent.connect() as stream:
        assert ask(stream, forward(A)) == SUCCESS
        assert ask(stream, WHY_FRAME) == FAILURE
        assert "is not told to other hosts" in explained(stream)
    with kagent.connect() as stream:  # a bind that fails counts as well
        ask(stream, bind(A, signature=b""))
        assert ask(stream, WHY_FRAME) == FAILURE
    causes = [(one["request"], one["cause"]) for one in told(kagent)]
    assert (STATUS, "from-afar") in causes
    assert (WHY, "from-afar") in causes
    assert ("session-bind@openssh.com", "unproven") in causes


def test_only_so_many_are_kept(kagent: Agent) -> None:
    """And the same over and over is one."""
    with kagent.connect() as stream:
        for number in range(60):
            for _ in range(2):
                ask(stream, encode(Extension(f"{number}@" + "\x1b" * 1000, b"")))
    refusals = told(kagent)
    assert len(refusals) == 40
    assert {one["times"] for one in refusals} == {2}
    assert "\x1b" not in kagent.run("kagentctl", "why").stdout
    assert "110 more since" in kagent.run("kagentctl", "why").stdout


def test_another_host_pushes_out_its_own(kagent: Agent) -> None:
    """What it is refused over and over leaves what was refused here."""
    key = kagent.person.key("id")
    sign(kagent, key)
    with kagent.connect() as stream:
        assert ask(stream, forward(A)) == SUCCESS
        for number in range(60):
            assert ask(stream, encode(Extension(f"{number}@another", b""))) == FAILURE
    assert [one["request"] for one in told(kagent) if not one["forwarded"]] == ["SIGN_REQUEST"]
    assert last(kagent)["request"] == "59@another"


def test_no_agent_and_others(person: Person) -> None:
    said = person.run("kagentctl", "why", check=False, SSH_AUTH_SOCK="/nowhere")
    assert said.returncode == 1
    assert "no agent: SSH_AUTH_SOCK is /nowhere: No such file" in said.stderr
    with agent(person, "ssh-agent") as other:
        said = other.run("kagentctl", "why", check=False)
        assert said.returncode == 1
        assert "another agent answers at SSH_AUTH_SOCK, not kagent" in said.stderr


def test_another_program_has_used_all_up(kagent: Agent) -> None:
    """Here it lets the front have no more open files; prlimit(2)."""
    load = encode(AddIdentity(Pair.new().private, "key"))
    front, files = kagent.front, resource.RLIMIT_NOFILE
    before = resource.prlimit(front, files)
    with kagent.connect() as stream:
        ask(stream, WHY_FRAME)
        open_files = {int(path.name) for path in Path(f"/proc/{front}/fd").iterdir()}
        next_one = min(set(range(len(open_files) + 1)) - open_files)
        resource.prlimit(front, files, (next_one, before[1]))
        assert ask(stream, load) == FAILURE
    resource.prlimit(front, files, before)
    refusal = last(kagent)
    assert (refusal["request"], refusal["cause"]) == ("ADD_IDENTITY", "used-up")
    assert "Too many open files" in refusal["reason"]
    assert refusal["next"]["command"].startswith("ps ")
    with kagent.connect() as stream:
        assert ask(stream, load) == SUCCESS
