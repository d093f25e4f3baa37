"""kagentctl show: what a person, and a program, is told of the keys."""

from __future__ import annotations

import itertools
import json
import os
import pty
import signal
import subprocess
from typing import Any
from xml.etree import ElementTree

import pytest

from kagent.custody.identity import Custody
from kagent.protocol.messages import (
    SHOW,
    STATUS,
    ExtensionResponse,
    IdentitiesAnswer,
    ListedKey,
    Message,
    Shown,
    Status,
    encode,
)
from kagent.protocol.publickey import parse_line
from tests.support.programs import Agent, Person, agent, wait_until
from tests.support.recorder import recorder


def shown(kagent: Agent) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(kagent.run("kagentctl", "show", "--json").stdout)
    return told


def test_what_only_the_agent_knows(kagent: Agent) -> None:
    """A sealed key under constraints, and its certificate: custody, why, time left, validity."""
    person = kagent.person
    path = person.key("id", "-t", "ed25519")
    authority = person.key("ca", "-t", "ed25519")
    sign = [
        "ssh-keygen",
        "-q",
        "-s",
        authority,
        "-I",
        "of id",
        "-n",
        "me",
        "-V",
        "20300101:20310101",
    ]
    person.run(*sign, f"{path}.pub")
    kagent.run("kagent-add", "-t", "600", "-c", path)
    plain, certified = shown(kagent)["agent"]
    assert plain["type"] == "ED25519"
    assert plain["bits"] == 256
    assert plain["comment"] == "id käse"
    assert plain["custody"] == "sealed"
    assert "kernel can't sign with this type" in plain["why"]
    assert plain["constraints"] == ["confirm each use"]
    assert 500 < int(plain["left"].removesuffix("s")) <= 600
    assert plain["certificate"] is None
    assert certified["type"] == "ED25519-CERT"
    assert certified["fingerprint"] == plain["fingerprint"]
    assert certified["certificate"]["id"] == "of id"
    assert certified["certificate"]["principals"] == ["me"]
    text = kagent.run("kagentctl", "show").stdout
    assert f"256 {plain['fingerprint']} id käse (ED25519)" in text
    assert "s left; confirm each use" in text
    assert "certificate 'of id' valid from 20" in text


def test_the_tree_is_keyctls(kagent: Agent) -> None:
    person = kagent.person
    below = person.run("keyctl", "newring", "below", "@s").stdout.strip()
    person.run("keyctl", "newring", "deeper", below)
    person.run("keyctl", "add", "user", "one", "secret", below)
    person.run("keyctl", "newring", "beside", "@s")
    person.run("keyctl", "add", "user", "two", "secret", "@s")
    drawn = person.run("keyctl", "show").stdout
    assert kagent.run("kagentctl", "show").stdout.startswith(drawn)


def test_without_an_agent_and_with_a_locked_one(kagent: Agent) -> None:
    person = kagent.person
    assert "SSH_AUTH_SOCK is not set" in person.run("kagentctl", "show").stdout
    kagent.run("ssh-add", person.key("id", "-t", "ed25519"))
    askpass = person.file("askpass", "#!/bin/sh\necho secret\n", 0o700)
    kagent.run("ssh-add", "-x", SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    told = kagent.run("kagentctl", "show").stdout
    assert "the agent is locked" in told
    assert "SHA256" not in told
    for option in ("-x", "-D"):
        refused = kagent.run(
            *("kagent-add", option),
            check=False,
            SSH_ASKPASS=str(askpass),
            SSH_ASKPASS_REQUIRE="force",
        )
        assert "\nkagent: the agent is locked\n" in refused.stderr


def test_with_another_agent(person: Person) -> None:
    """What only a kagent can tell or do is not blamed on anything else."""
    key = person.key("id", "-t", "ed25519")
    with agent(person, "ssh-agent") as other:
        told = "another agent answers at SSH_AUTH_SOCK, not kagent"
        assert other.run("kagentctl", "show").stdout.endswith(f"{told}\n")
        status = other.run("kagentctl", "status", check=False).stderr
        assert f"{told}; to have one, `kagentctl install`" in status
        for options in (["--custody", "sealed"], ["--confirm-forwarded"]):
            refused = other.run("kagent-add", *options, key, check=False)
            assert f"{options[0]} can be used with kagent only" in refused.stderr
        assert "kagent only" not in other.run("kagent-add", "-D", check=False).stderr


def test_watch_follows_changes(kagent: Agent) -> None:
    person = kagent.person
    output = person.file("output", "")
    with output.open("w") as stream:
        watching = person.start(
            "kagentctl",
            "show",
            "--watch",
            stdout=stream,
            env={"SSH_AUTH_SOCK": str(kagent.socket)},
        )
    with watching:
        try:
            wait_until(lambda: "Session Keyring" in output.read_text())
            path = person.key("id", "-t", "ed25519")
            kagent.run("ssh-add", path)
            wait_until(lambda: "id käse (ED25519)" in output.read_text())
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0


def test_colour_on_a_terminal_only(kagent: Agent) -> None:
    def on_terminal(**env: str) -> bytes:
        ours, theirs = pty.openpty()
        with kagent.person.start("kagentctl", "show", stdout=theirs, env=env) as process:
            assert process.wait(60) == 0
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:
            pass  # how a terminal ends
        os.close(ours)
        return written

    assert b"\033[1mSession Keyring" in on_terminal()
    assert b"\033[" not in on_terminal(NO_COLOR="1")
    assert "\033[" not in kagent.run("kagentctl", "show").stdout


@pytest.mark.parametrize(
    ("validity", "told"),
    [
        ("0x0:0x7ffffffffffffff0", "from 1970-01-01 00:00 UTC to beyond the year 9999"),
        ("0x7ffffffffffffff0:forever", "from beyond the year 9999 to forever"),
        ("0x1:0x2", "from 1970-01-01 00:00 UTC to 1970-01-01 00:00 UTC"),
        ("0x0:0x3afff4417f", "from 1970-01-01 00:00 UTC to 9999-12-31 23:59 UTC"),
        ("0x0:0x3afff44180", "from 1970-01-01 00:00 UTC to beyond the year 9999"),
        ("always:forever", "forever"),
    ],
)
def test_a_certificate_may_name_any_time(person: Person, validity: str, told: str) -> None:
    path, authority = person.key("id", "-t", "ed25519"), person.key("ca", "-t", "ed25519")
    person.run("ssh-keygen", "-q", "-s", authority, "-I", "x", "-V", validity, f"{path}.pub")
    blob = parse_line((person.home / "id-cert.pub").read_text())[0].blob
    shown = Shown(blob, "", Custody.SEALED, "", (), 0)
    assert f"certificate 'x' valid {told}" in show(person, shown)


def test_an_agent_may_say_anything(person: Person) -> None:
    """What it says can't drive the terminal, nor end the program."""
    blob = parse_line(person.key("id", "-t", "ed25519").with_suffix(".pub").read_text())[0].blob
    evil = "x\n\x1b[2J\u202e\u3164" + "\u0301" * 70
    text = show(
        person,
        Shown(b"no key", evil, evil, evil, (), 0),
        Shown(blob, evil, evil, evil, (), 2**64 - 1),
    )
    assert text.count("SHA256:") == 1
    assert text.replace("\n", "").isprintable()
    assert r"x\n\x1b[2J\u202e\u3164\u0301" in text
    status = Status(
        2**32 - 1, 2**64 - 1, 2**64 - 1, 2**32 - 1, evil, 2**63, True, 2**32 - 1, True, evil
    )
    text = answered(person, ExtensionResponse(STATUS, status.write()), "kagentctl", "status")
    assert "since:      beyond the year 9999" in text
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 12
    for option in ("-l", "-L"):
        listed = IdentitiesAnswer((ListedKey(blob, evil),))
        text = answered(person, listed, "kagent-add", option)
        assert len(text.splitlines()) == 1
        assert text.strip().isprintable()


def show(person: Person, *shown: Shown) -> str:
    """What is drawn where an agent says that of its keys."""
    answer = ExtensionResponse(SHOW, b"".join(one.write() for one in shown))
    return answered(person, answer, "kagentctl", "show")


def answered(person: Person, answer: Message, *command: str) -> str:
    """What a program prints that an agent gives this answer."""
    with recorder(person) as agent:
        agent.answer = encode(answer)
        told, _ = agent.run(*command)
        agent.path.unlink()
    assert (told.returncode, told.stderr) == (0, "")
    return told.stdout


def crosswise(person: Person, floors: int, each: int) -> None:
    """Keyrings in the session, each linked into all of the floor above."""

    def new(number: int) -> str:
        return person.run("keyctl", "newring", f"ring{number}", "@s").stdout.strip()

    numbers = itertools.count()
    building = [[new(next(numbers)) for _ in range(each)] for _ in range(floors)]
    links = [
        f"keyctl link {ring} {above}"
        for upper, lower in itertools.pairwise(building)
        for above, ring in itertools.product(upper, lower)
    ]
    # What lies deeper than the kernel searches is possessed by nobody: the user may read it.
    permissions = [f"keyctl setperm {ring} 0x3f3f0000" for floor in building for ring in floor]
    unlinks = [f"keyctl unlink {ring} @s" for floor in building[1:] for ring in floor]
    person.run("sh", "-euc", "\n".join(links + permissions + unlinks))


def test_what_a_keyring_holds_is_drawn_once(person: Person) -> None:
    """Of four floors of five, as a tree would have it: 5 + 25 + 125 + 625 lines."""
    crosswise(person, 4, 5)
    assert person.run("keyctl", "show").stdout.count("keyring: ring") == 780
    told = person.run("kagentctl", "show").stdout
    assert told.count("keyring: ring") == 5 + 3 * 25
    assert told.count("  (shown above)") == 3 * (25 - 5)
    told = json.loads(person.run("kagentctl", "show", "--json").stdout)
    below = told["keyrings"]["Session Keyring"]["below"]
    assert [one["note"] for one in below[0]["below"][0]["below"]] == [""] * 5
    assert [one["note"] for one in below[1]["below"]] == ["shown above"] * 5


def test_deep_keyrings(person: Person) -> None:
    crosswise(person, 60, 1)
    told = person.run("kagentctl", "show").stdout
    assert told.count("keyring: ring") == 20
    assert told.count("(too deep to be drawn)") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a keyring away")
def test_another_users_keyring_is_not_looked_into(person: Person) -> None:
    theirs = person.run("keyctl", "newring", "theirs", "@s").stdout.strip()
    person.run("keyctl", "newring", "inside", theirs)
    subprocess.run(["keyctl", "setperm", theirs, "0x3f3f3f3f"], check=True)
    assert "keyring: inside" in person.run("kagentctl", "show").stdout
    subprocess.run(["keyctl", "chown", theirs, "65534"], check=True)
    told = person.run("kagentctl", "show").stdout
    assert "keyring: theirs  (another user's: not looked into)" in told
    assert "keyring: inside" not in told


def test_a_picture(kagent: Agent) -> None:
    """--svg: the same, for who would rather look."""
    key = kagent.person.key("id", comment="<me> & you")
    kagent.run("ssh-add", "-q", key)
    svg = kagent.run("kagentctl", "show", "--svg").stdout
    texts = [one.text for one in ElementTree.fromstring(svg).iter() if one.text]
    assert "Session Keyring" in texts
    assert "‹me› ＆ you" in texts  # noqa: RUF001
    assert "kagent's sign worker" in texts
