"""What an inbox takes from another user is no place of the agent's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.custody.sharing import INBOX, Giver
from kagent.keyctl import USER_KEYRING, syscalls
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.conftest import Starting
from tests.hostile.people import Login, attack, forget, somebody, turn
from tests.support.programs import SECONDS, Person


@pytest.fixture
def carol(folder: Path) -> Iterator[Person]:
    """Another user of the machine, whom nobody lets do anything."""
    third = somebody("carol", folder)
    yield third
    forget(third)


def inbox_for_bob(alice: Person) -> int:
    """As kagentctl accept makes it."""

    def accept() -> None:
        inbox = syscalls.add_key("keyring", Giver(99, "bob").inbox, None, USER_KEYRING)
        syscalls.setperm(inbox, INBOX)
        (alice.home / "inbox").write_text(str(inbox))

    with alice.start("true", preexec_fn=accept) as process:
        process.wait(SECONDS)
    return int((alice.home / "inbox").read_text())


@pytest.mark.skipif("rsa" not in PAIRS, reason="this kernel takes no private keys")
@pytest.mark.parametrize("keyring", ["session", "user"])
def test_a_keyring_in_an_inbox_is_nobodys_anchor(
    person: Person, carol: Person, starting: Starting, falls: bool, keyring: str
) -> None:
    """Carol's keyring doesn't become the place of Alice's keys."""
    inbox = inbox_for_bob(person)
    signed = 0
    with attack(carol, Login.ANOTHER, "carol", inbox) as attacker:
        assert int(turn(attacker, "plant")) > 0, "anybody can"
        with (
            starting(person, "kagent", f"--keyring={keyring}") as agent,
            Client(agent.socket) as client,
        ):
            pair = Pair.rsa()
            assert client.add(pair)
            signed += int(turn(attacker, "sign"))
            assert client.lock()
            assert client.unlock()
            signed += int(turn(attacker, "sign"))
            assert client.signs(pair)
    assert bool(signed) == falls


def found(alice: Person, name: str) -> int:
    """What who searches for that keyring finds."""
    return int(alice.run("keyctl", "search", "@u", "keyring", name).stdout)


def test_accept_makes_a_keyring_of_its_own(person: Person, carol: Person) -> None:
    """Also where Carol has put one of that name into the one that there is."""
    with attack(carol, Login.ANOTHER, "carol", inbox_for_bob(person)) as attacker:
        assert int(turn(attacker, "plant")) > 0
        hers = found(person, "kagent:from:1:daemon")
        person.run("kagentctl", "accept", "--from", "daemon")
        assert found(person, "kagent:from:1:daemon") != hers, "the control: before, it was found"
        about = person.run("keyctl", "rdescribe", str(found(person, "kagent:from:1:daemon"))).stdout
        assert about.startswith(f"keyring;{person.uid};"), about


@pytest.mark.parametrize("permissions", ["0x3f010000", "0x1f010000", "0x3f3f3f3f", "0x37370000"])
def test_forget_ends_what_is_the_users(person: Person, carol: Person, permissions: str) -> None:
    """Whatever Carol has put under that name, and what somebody has made of its permissions."""
    anchor = person.run("keyctl", "newring", "kagent:user", "@u").stdout.strip()
    key = person.run("keyctl", "add", "user", "kagent:SHA256:one", "it", anchor).stdout.strip()
    person.run("keyctl", "setperm", anchor, permissions)
    with attack(carol, Login.ANOTHER, "carol", inbox_for_bob(person)) as attacker:
        assert int(turn(attacker, "plant")) > 0
        person.run("kagentctl", "forget")
    assert person.run("keyctl", "rdescribe", key, check=False).returncode
    assert "kagent:user" not in person.run("keyctl", "rlist", "@u").stdout
