"""The examples of "What is Linux Kernel keystore and why you should use it in your next
application", as they stand there, in real logins, with kagent beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.logins import Login, logins, server
from tests.support.programs import wait_until

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(os.getuid() != 0, reason="only root may be two users"),
]


def listed(login: Login) -> str:
    return login.type("ssh-add -l; true")


def test_keys_and_keyrings(folder: Path) -> None:
    with logins(folder) as users:
        alice = users["alice"]
        alice.type("keyctl newring myring @u")
        alice.type("keyctl add user mykey hunter2 %:myring")
        drawn = alice.type("keyctl show")
        assert "user: mykey" in drawn
        shown = alice.type("kagentctl show").splitlines()
        assert drawn.splitlines() == shown[: len(drawn.splitlines())]
        assert alice.type("keyctl print %user:mykey") == "hunter2\n"
        alice.type("keyctl clear @u")


def test_sharing_between_two_users(folder: Path) -> None:
    with logins(folder) as users:
        alice, bob = users["alice"], users["bob"]
        ring = bob.type("keyctl newring from-others @u").strip()
        bob.type("keyctl setperm %:from-others 0x3f010004")
        alice.type("keyctl add user secret hunter2 @u")
        assert "user: secret" in alice.type("kagentctl show")
        alice.type(f"keyctl move %user:secret @u {ring}")
        assert "secret" not in alice.type("keyctl show")
        assert "secret" not in alice.type("kagentctl show")
        assert bob.type("keyctl print %user:secret") == "hunter2\n"
        assert "secret" in bob.type("keyctl show @u")
        assert "user: secret" in bob.type("kagentctl show")
        bob.type("keyctl clear @u")


def test_a_session_keyring_dies_with_the_session(folder: Path) -> None:
    """What kagent has loaded dies with it, and its agent, if it lives on, has nothing any more."""
    with server(folder) as (dev, key):
        first = Login(dev, "alice", key)
        first.type("keyctl add user secret hunter2 @s")
        first.type('eval "$(kagent -s)"; echo "$SSH_AUTH_SOCK $SSH_AGENT_PID" > agent')
        make(first)
        first.type("ssh-keygen -q -p -N '' -f priv.pem; ssh-add priv.pem")
        assert "priv.pem" in listed(first)
        first.log_out()
        wait_until(lambda: "secret" not in Path("/proc/keys").read_text())
        second = Login(dev, "alice", key)
        assert "secret" not in second.type("keyctl show")
        second.type("read SSH_AUTH_SOCK SSH_AGENT_PID < agent; export SSH_AUTH_SOCK SSH_AGENT_PID")
        assert "no identities" in listed(second)
        assert "kagent" not in second.type("keyctl show")
        second.type("kagent -k")
        second.log_out()


def test_the_ssh_agent_replacement(folder: Path) -> None:
    with logins(folder) as users:
        alice = users["alice"]
        alice.type('eval "$(kagent -s)"')
        make(alice)
        alice.type("openssl rsa -in priv.pem -pubout -out pub.pem")
        alice.type("openssl pkcs8 -in priv.pem -topk8 -outform DER -nocrypt -out priv.p8")
        assert "no identities" in listed(alice)
        alice.type('cat priv.p8 | keyctl padd asymmetric "rsa-key" @s')
        assert " rsa-key (RSA)" in listed(alice)
        alice.type("echo abc | openssl sha256 -binary > abc.sha256")
        alice.type(
            "keyctl pkey_sign %asymmetric:rsa-key 0 abc.sha256 enc=pkcs1 hash=sha256 > abc.sig"
        )
        verify = "echo abc | openssl sha256 -verify pub.pem -signature abc.sig"
        assert alice.type(verify) == "Verified OK\n"
        alice.type("ssh-add -L > rsa-key.pub; ssh-add -T rsa-key.pub")
        alice.type("keyctl purge asymmetric rsa-key")
        assert "no identities" in listed(alice)
        alice.type("kagent -k")


def make(login: Login) -> None:
    login.type("umask 077; openssl genrsa -out priv.pem 2>/dev/null")
