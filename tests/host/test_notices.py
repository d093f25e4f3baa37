"""Told when a key was used: by a real daemon, over a bus of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.protocol.messages import SignRequest, SignResponse, decode, encode
from kagent.protocol.publickey import parse_line
from tests.destinations.keys import A
from tests.destinations.requests import forward
from tests.support.authority import Authority
from tests.support.desktop import Desktop, desktop, only
from tests.support.frames import ask
from tests.support.manual import block
from tests.support.programs import BIN, Agent, Person, agent, wait_until

# What could be markup, a line of its own, or the end of a text.
COMMENT = r"<b>me</b>\n& \"you\" 100% --x"


@pytest.fixture
def shown(person: Person) -> Iterator[Desktop]:
    with desktop(person) as running:
        yield running


@pytest.mark.parametrize("sender", ["busctl", "notify-send"])
def test_one_and_then_many(person: Person, shown: Desktop, folder: Path, sender: str) -> None:
    person.key("id", comment=COMMENT)
    Authority.of(person).configure(notify="always")
    path = f"{only(folder / 'bin', sender)}:{BIN}"
    env = {"PATH": path, "DBUS_SESSION_BUS_ADDRESS": shown.address}
    with agent(person, env=env) as kagent:
        kagent.run("ssh-add", "-q", "id")
        kagent.run("ssh-add", "-T", "id.pub")
        wait_until(lambda: shown.told)
        for _ in range(12):
            kagent.run("ssh-add", "-T", "id.pub")
        wait_until(lambda: sum(int(heading.split()[0]) for heading, _ in shown.told) == 13)
        first, second = shown.told[:2]
        name = "‹b›me‹/b›\\n＆ \\'you\\' 100% --x"  # noqa: RUF001
        assert first[0] == f"1 signature with {name}"
        assert first[1].startswith("by ssh-add ← ")
        assert "\n" not in first[1]
        assert len(shown.told) <= 5
        assert second[0].endswith(f" signatures with {name}")
        wait_until(lambda: second[0] in shown.shown)
    assert "isn't told" not in kagent.logged()


def signed(kagent: Agent, key: str, *, forwarded: bool) -> None:
    blob = parse_line((kagent.person.home / f"{key}.pub").read_text())[0].blob
    with kagent.connect() as stream:
        if forwarded:
            ask(stream, forward(A))
        answer = decode(ask(stream, encode(SignRequest(blob, b"data", 0)))[4:])
        assert isinstance(answer, SignResponse)


def test_what_one_wants_to_be_told(person: Person, shown: Desktop) -> None:
    """Of all keys what is forwarded; of one each use, and of one none."""
    for name in ("usual", "much", "never"):
        person.key(name, comment=name)
    authority = Authority.of(person)
    always, never = ({"public": one, "notify": one} for one in ("always", "never"))
    authority.configure({**always, "public": "much"}, never, notify="forwarded")
    with agent(person, env={"DBUS_SESSION_BUS_ADDRESS": shown.address}) as kagent:
        kagent.run("ssh-add", "-q", "usual", "much", "never")
        for forwarded in (False, True):
            for name in ("usual", "never", "much"):
                signed(kagent, name, forwarded=forwarded)

        def told() -> list[str]:
            lines = "\n".join(f"{heading} {text}" for heading, text in shown.told)
            return [one for one in ("usual", "much", "never") if f"with {one}" in lines]

        wait_until(lambda: sum(int(one.split()[0]) for one, _ in shown.told) == 3)
        assert told() == ["usual", "much"]
        assert "FORWARDED" in shown.calls.read_text()
        assert "for an unknown host with the key SHA" in shown.calls.read_text()


@pytest.mark.parametrize("address", ["unix:path=/nowhere", None])
def test_without_a_bus(person: Person, address: str | None) -> None:
    """One line in the log, and all goes on; kagentctl doctor knows."""
    person.key("id")
    Authority.of(person).configure(notify="always")
    env = {"DBUS_SESSION_BUS_ADDRESS": address} if address else {}
    with agent(person, env=env) as kagent:
        kagent.run("ssh-add", "-q", "id")
        for _ in range(3):
            kagent.run("ssh-add", "-T", "id.pub")
        wait_until(lambda: "the user isn't told of signatures: " in kagent.logged())
        kagent.run("ssh-add", "-T", "id.pub")
        assert kagent.logged().count("isn't told") == 1
        told = kagent.run("kagentctl", "doctor", check=False, **env).stdout
        what = f"sent by busctl, over {address}" if address else "there is no session bus"
        assert f"notifications: {what}\n" in told


def test_the_example_of_the_manual(person: Person, shown: Desktop) -> None:
    """As it stands in kagent(1)."""
    written = block("kagent.1", 'notify = "forwarded"')
    person.run("mkdir", "-p", "-m", "700", ".ssh", ".config/kagent")
    person.file(".config/kagent/kagent.toml", written)
    person.key(".ssh/id_ed25519", comment="me@laptop")
    with agent(person, env={"DBUS_SESSION_BUS_ADDRESS": shown.address}) as kagent:
        assert "0 settings, 1 identity\n" in kagent.run("kagentctl", "check").stdout
        kagent.run("ssh-add", "-q", ".ssh/id_ed25519")
        kagent.run("ssh-add", "-T", ".ssh/id_ed25519.pub")
        wait_until(lambda: "1 signature with me@laptop" in shown.shown)
