"""What the permissions of shared keys let two users do, as the kernel has it."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Callable, Iterator

import pytest

from kagent.custody.sharing import INBOX, SHARED, SHARED_RECORD, UNSHARED, Giver
from kagent.keyctl import (
    Key,
    Keyring,
    OperationNotSupported,
    PermissionDenied,
    join_anonymous_session,
    syscalls,
)

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may be two users")

NOBODY = pwd.getpwnam("nobody").pw_uid


ATTEMPTS: dict[str, Callable[[Key], object]] = {
    "see": Key.describe,
    "read": lambda key: Keyring(key.serial).read(),
    "sign": lambda key: syscalls.pkey_query(key.serial, "enc=pkcs1"),
    "take": lambda key: Keyring.create("own", _session()).link(key),
    "write": lambda key: key.update(b"other"),
}


def _session() -> Keyring:
    return Keyring.special(syscalls.SESSION_KEYRING)


def may(key: Key, permissions: int) -> set[str]:
    """What this process may do with a key."""
    done = set[str]()
    attempts = ATTEMPTS | {"change": lambda key: key.set_permissions(permissions)}
    for name, attempt in attempts.items():
        try:
            attempt(key)
        except PermissionDenied:
            continue
        except OperationNotSupported:
            pass  # it may, and this type of key can't
        done.add(name)
    return done


class Receiver:
    """Another user's process, with a keyring for what root gives."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name = Giver(0, "root").inbox  # before the fork, where contrib/mutate sees who asks
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            try:
                self._serve(theirs, name)
            finally:
                os._exit(1)
        theirs.close()
        self._stream = ours
        self.inbox = Keyring(int(ours.recv(100)))

    def _serve(self, stream: socket.socket, name: str) -> None:
        os.setgroups([])
        os.setuid(NOBODY)
        session = join_anonymous_session()
        inbox = Keyring.create(name, session)
        inbox.set_permissions(INBOX)
        stream.send(str(inbox.serial).encode())
        while asked := stream.recv(100):
            serial, permissions = map(int, asked.split())
            stream.send(json.dumps(sorted(may(Key(serial), permissions))).encode())

    def may(self, key: Key, permissions: int) -> set[str]:
        self._stream.send(f"{key.serial} {permissions}".encode())
        return set(json.loads(self._stream.recv(1000)))

    def close(self) -> None:
        self._stream.close()
        os.waitpid(self.pid, 0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    join_anonymous_session()
    receiver = Receiver()
    yield receiver
    receiver.close()
    join_anonymous_session()


@pytest.mark.parametrize(
    ("permissions", "receivers", "owners"),
    [
        # Of a key that can be read at all, the kernel lets whoever finds it by searching.
        (SHARED, {"see", "read", "sign"}, {"see", "sign", "take", "change"}),
        (UNSHARED, set(), {"see", "sign", "take", "change"}),
        (SHARED_RECORD, {"see", "read", "sign"}, {"see", "read", "take", "change"}),
    ],
    ids=["shared", "unshared", "record"],
)
def test_a_shared_key(
    receiver: Receiver, permissions: int, receivers: set[str], owners: set[str]
) -> None:
    key = _session().add("user", "kagent:key", b"content")
    receiver.inbox.link(key)
    key.set_permissions(permissions)
    assert receiver.may(key, permissions) == receivers
    join_anonymous_session()  # a later login, which doesn't possess it
    assert may(key, permissions) == owners


def test_where_it_is_received(receiver: Receiver) -> None:
    key = _session().add("user", "kagent:key", b"content")
    receiver.inbox.link(key)
    assert key.serial in receiver.inbox.keys()  # noqa: SIM118, it is no dictionary
    assert receiver.may(receiver.inbox, INBOX) >= {"see", "read", "sign", "take", "change"}
    assert may(receiver.inbox, INBOX) & {"sign", "take", "change"} == set()
    about = receiver.inbox.describe()
    assert about.description == "kagent:from:0:root"
    assert Giver.of(about.description, os.getuid()) == Giver(0, "root")
    assert Giver.of(about.description, NOBODY) is None
    for other in ("kagent:from:root:0", "kagent:from:0:", "xkagent:from:0:root", "kagent:session"):
        assert Giver.of(other, os.getuid()) is None


def test_who_receives_finds_it_at_a_later_login(receiver: Receiver) -> None:
    own = Keyring.create(Giver(NOBODY, "nobody").inbox, _session())
    own.set_permissions(INBOX)
    receiver.inbox.link(own)  # or it would end with this login
    join_anonymous_session()
    assert may(own, INBOX) == {"see"}
