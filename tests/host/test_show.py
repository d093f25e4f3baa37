"""kagentctl show: what a person, and a program, is told of the keys."""

from __future__ import annotations

import json
import os
import pty
import signal
from typing import Any

from tests.host.conftest import key
from tests.programs import Agent, wait_until


def shown(kagent: Agent) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(kagent.run("kagentctl", "show", "--json").stdout)
    return told


def test_what_only_the_agent_knows(kagent: Agent) -> None:
    """A sealed key under constraints, and its certificate: custody, why, time left, validity."""
    person = kagent.person
    path = key(person, "id", "-t", "ed25519")
    authority = key(person, "ca", "-t", "ed25519")
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
    kagent.run("ssh-add", key(person, "id", "-t", "ed25519"))
    askpass = person.file("askpass", "#!/bin/sh\necho secret\n", 0o700)
    kagent.run("ssh-add", "-x", SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    told = kagent.run("kagentctl", "show").stdout
    assert "it is locked" in told
    assert "SHA256" not in told


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
            path = key(person, "id", "-t", "ed25519")
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
