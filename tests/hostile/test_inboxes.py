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

pytestmark = pytest.mark.skipif("rsa" not in PAIRS, reason="this kernel takes no private keys")


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
