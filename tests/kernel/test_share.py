"""One user lets another sign with a key, in two real logins; keyctl is the witness."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import keys
from tests.kernel.logins import Login, logins

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(os.getuid() != 0, reason="only root may be two users"),
]


@pytest.fixture
def files(folder: Path) -> Path:
    """Key files that both users can read."""
    for number in (0, 1):
        path = keys.rsa(2048, number)
        (folder / f"key{number}.p8").write_bytes(keys.pkcs8(path))
        shutil.copy(path.with_suffix(".pub"), folder / f"key{number}.pub")
        for name in (f"key{number}.p8", f"key{number}.pub"):
            (folder / name).chmod(0o644)
    return folder


@pytest.fixture
def both(folder: Path) -> Iterator[tuple[Login, Login]]:
    """Alice and Bob, each with a kagent."""
    with logins(folder) as opened:
        alice, bob = opened["alice"], opened["bob"]
        for login in (alice, bob):
            login.type('eval "$(kagent -s)"')
        yield alice, bob
        for login in (alice, bob):
            login.type("ssh-add -D; keyctl clear @u; kagent -k")


def inbox() -> str:
    """The description of the keyring in which Bob takes keys from Alice."""
    return f"kagent:from:{pwd.getpwnam('alice').pw_uid}:alice"


def listed(login: Login) -> list[str]:
    return [line for line in login.type("ssh-add -l; true").splitlines() if "SHA256" in line]


def test_from_offer_to_end(both: tuple[Login, Login], files: Path) -> None:
    alice, bob = both
    alice.type(f"umask 077; cp {files}/key0.p8 k.p8; openssl pkey -inform DER -in k.p8 -out k.pem")
    alice.type("ssh-keygen -q -p -N '' -f k.pem && ssh-add k.pem")
    serial = alice.type(f"keyctl padd asymmetric deploy @s < {files}/key1.p8").strip()
    assert len(listed(alice)) == 2
    # Both must agree.
    assert "kagentctl accept --from alice" in alice.type("kagentctl share deploy --with bob", 1)
    assert "kagentctl share KEY --with bob" in bob.type("kagentctl accept --from alice")
    alice.type("kagentctl share deploy --with bob")
    alice.type(f"kagentctl share {files}/key0.pub --with bob")
    # Both see it.
    assert sorted(line.split(" ", 2)[2] for line in listed(bob)) == [
        "deploy (shared by alice) (RSA)",
        "k.pem (shared by alice) (RSA)",
    ]
    assert alice.type("kagentctl shared").count("bob can sign with") == 2
    assert bob.type("kagentctl shared").count("alice lets you sign with") == 2
    shown = json.loads(alice.type("kagentctl show --json"))
    assert json.dumps(shown).count('"shared_with": ["bob"]') == 2
    assert bob.type("kagentctl show").count("owner alice") == 2
    # Bob can sign with it, around the agent too, and nothing else.
    for number in (0, 1):
        bob.type(f"ssh-add -T {files}/key{number}.pub")
    bob.type("keyctl link @u @s; head -c 32 /dev/zero > digest")
    bob.type(f"keyctl pkey_sign {serial} 0 digest enc=pkcs1 hash=sha256 > signature")
    for denied in ("link {} @s", "setperm {} 0x3f3f3f3f", "revoke {}", "timeout {} 9", "print {}"):
        told = bob.type(f"keyctl {denied.format(serial)} || true")
        assert re.search("Permission denied|not supported", told), (denied, told)
    # Alice can sign on.
    for number in (0, 1):
        alice.type(f"ssh-add -T {files}/key{number}.pub")
    # What others put there is not taken.
    ring = bob.type(f"keyctl search @u keyring {inbox()}").strip()
    os.system(f"keyctl padd asymmetric roots {ring} < {files}/key0.p8 >/dev/null")
    assert len(listed(bob)) == 2
    # One ends by unshare, the other with the key.
    alice.type("kagentctl unshare deploy --with bob")
    assert [line.split()[2] for line in listed(bob)] == ["k.pem"]
    assert "denied" in bob.type(f"keyctl pkey_sign {serial} 0 digest enc=pkcs1 hash=sha256", 1)
    bob.type(f"ssh-add -T {files}/key1.pub", 1)
    alice.type(f"ssh-add -T {files}/key1.pub")
    assert "00390000" in alice.type(f"keyctl rdescribe {serial}")
    alice.type(f"ssh-add -d {files}/key0.pub")
    assert listed(bob) == []
    assert "k.pem" not in alice.type("kagentctl shared")


def test_the_receiver_hides_it(both: tuple[Login, Login], files: Path) -> None:
    """In a keyring that Alice can't see, behind one that she sees: unshare ends it all the same."""
    alice, bob = both
    serial = alice.type(f"keyctl padd asymmetric deploy @s < {files}/key1.p8").strip()
    bob.type("keyctl link @u @s; head -c 32 /dev/zero > digest")
    for where in ("hidden", "seen"):
        bob.type("kagentctl accept --from alice")
        alice.type("kagentctl share deploy --with bob")
        if where == "hidden":
            ring = bob.type(f"keyctl search @u keyring {inbox()}").strip()
            bob.type(f"keyctl link {ring} @s; keyctl unlink {ring} @u")
            bob.type(f"keyctl setperm {ring} 0x3f000000")
    signing = f"keyctl pkey_sign {serial} 0 digest enc=pkcs1 hash=sha256"
    bob.type(f"{signing} > signature")
    assert "bob can sign no longer" in alice.type("kagentctl unshare deploy")
    assert serial in bob.type(f"keyctl list {ring}"), "the control: it is there"
    for denied in (signing, f"keyctl link {serial} @s", f"keyctl setperm {serial} 0x3f3f3f3f"):
        assert "denied" in bob.type(denied, 1)
    alice.type(f"ssh-add -T {files}/key1.pub")
    # And where nothing is to be seen at all.
    alice.type("kagentctl share deploy --with bob")
    bob.type(f"{signing} > signature")
    seen = bob.type(f"keyctl search @u keyring {inbox()}").strip()
    bob.type(f"keyctl setperm {seen} 0x3f000000")
    assert "nobody else can sign" in alice.type("kagentctl unshare deploy --with bob")
    assert "denied" in bob.type(signing, 1)
    alice.type(f"ssh-add -T {files}/key1.pub")


def test_the_receiver_lets_go(both: tuple[Login, Login], files: Path) -> None:
    """ssh-add -D takes from Bob what he was given, and from Alice nothing."""
    alice, bob = both
    alice.type(f"keyctl padd asymmetric deploy @s < {files}/key1.p8")
    bob.type("kagentctl accept --from alice")
    alice.type("kagentctl share deploy --with bob")
    assert len(listed(bob)) == 1
    bob.type("ssh-add -D")
    assert listed(bob) == []
    assert alice.type("kagentctl shared") == ""
    alice.type(f"ssh-add -T {files}/key1.pub")


def test_constrained_keys_are_not_shared(both: tuple[Login, Login], files: Path) -> None:
    alice, bob = both
    bob.type("kagentctl accept --from alice")
    alice.type(f"umask 077; cp {files}/key0.p8 k.p8; openssl pkey -inform DER -in k.p8 -out k.pem")
    alice.type("ssh-add -t 600 k.pem")
    assert "without constraints" in alice.type("kagentctl share k.pem --with bob", 1)
    assert listed(bob) == []


def test_a_forged_line_of_proc_keys(both: tuple[Login, Login], files: Path) -> None:
    """Bob's keyring isn't taken for another user's, who takes no keys from Alice."""
    alice, bob = both
    alice.type(f"keyctl padd asymmetric deploy @s < {files}/key1.p8")
    ring = bob.type(f"keyctl newring {inbox()} @u").strip()
    line = f"{int(ring):08x} I--Q---     1 perm 3f010006     1     1 keyring   "
    forged = f"x\\n{line}{inbox()}: empty"
    forger = bob.type(f"keyctl newring \"$(printf '{forged}')\" @u").strip()
    for keyring in (ring, forger):
        bob.type(f"keyctl setperm {keyring} 0x3f01000f")
    assert f"\n{line}" in alice.type("cat /proc/keys")
    assert "daemon takes no keys from you yet" in alice.type(
        "kagentctl share deploy --with daemon", 1
    )
    assert "empty" in bob.type(f"keyctl list {ring}")
