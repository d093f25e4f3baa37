"""kagent --keyring: what survives what, in real logins."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.kernel import keys
from tests.kernel.logins import Login, server

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(os.getuid() != 0, reason="only root may log in as another"),
]


@pytest.mark.parametrize(
    ("place", "new_agent", "logout"),
    [
        ("session", True, False),
        ("user", True, True),
        ("persistent", True, True),
        ("private", False, False),
    ],
)
def test_what_survives(folder: Path, place: str, new_agent: bool, logout: bool) -> None:
    """kill -9 and a new agent in the same login; and logout, the last process of the user."""
    start = f'eval "$(kagent -s --keyring {place})"'
    listing = 'ssh-add -l | grep -c "key-2048-0 (RSA)"; true'
    with server(folder) as (there, key):
        first = Login(there, "alice", key)
        first.type(start)
        first.type(f"umask 077; cat > k <<EOF\n{keys.rsa(2048).read_text()}EOF")
        first.type("ssh-add k && ssh-add -L > k.pub && kill -9 $SSH_AGENT_PID")
        first.type(start)
        assert first.type(listing) == f"{int(new_agent)}\n"
        if new_agent:
            first.type("ssh-add -T k.pub")
        if place == "persistent":
            first.type("keyctl get_persistent @s")
            # Rounded down, as soon as a second has passed.
            assert re.search(" [23]d ", first.type("grep _persistent /proc/keys"))
        first.type("kagent -k")
        first.log_out()
        second = Login(there, "alice", key)
        second.type(start)
        assert second.type(listing) == f"{int(logout)}\n"
        second.type("ssh-add -D")
        assert second.type(listing) == "0\n"
        # Else what is in the last two would be found by the tests that come.
        second.type("kagent -k; keyctl clear @u; keyctl clear $(keyctl get_persistent @s)")
        second.log_out()


def test_an_agent_outlives_the_login(folder: Path) -> None:
    """With its keys elsewhere, it goes on: it signs, takes keys, and a new front starts."""
    with server(folder) as (there, key):
        first = Login(there, "alice", key)
        first.type('eval "$(kagent -s --keyring user)"')
        first.type('echo "$SSH_AUTH_SOCK $SSH_AGENT_PID" > agent')
        for number in (0, 1):
            text = keys.rsa(2048, number).read_text()
            first.type(f"umask 077; cat > k{number} <<EOF\n{text}EOF")
        first.type("ssh-add k0; ssh-add -L > k0.pub")
        first.log_out()
        second = Login(there, "alice", key)
        second.type("read SSH_AUTH_SOCK SSH_AGENT_PID < agent; export SSH_AUTH_SOCK SSH_AGENT_PID")
        second.type("ssh-add -T k0.pub && ssh-add k1")
        second.type("kill -9 $(pgrep -P $SSH_AGENT_PID kagent-front); sleep 1")
        second.type("ssh-add -T k0.pub && ssh-add -D && kagent -k && keyctl clear @u")
        second.log_out()
