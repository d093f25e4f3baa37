"""The keyrings as this login sees them, without the agent's help."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ...custody.adopted import Adopted, Found
from ...custody.identity import Identity
from ...custody.sharing import Giver
from ...keyctl import (
    PROCESS_KEYRING,
    USER_KEYRING,
    KernelKeyError,
    Keyring,
    listed,
    session_keyring,
)
from ...protocol.publickey import PublicKey, parse_line
from ...text import printable
from ..options import fail

MEANT = "its fingerprint, its comment, or its public key file"


class LoginKeyrings(NamedTuple):
    """The session keyring and the user's, both possessed by this process.

    Whoever is in the session possesses the first; the second only where it is linked.
    """

    session: Keyring
    user: Keyring


@cache
def login() -> LoginKeyrings:
    """Those of this process, from now on."""
    process, user = Keyring.special(PROCESS_KEYRING, create=True), Keyring.special(USER_KEYRING)
    process.link(user)
    return LoginKeyrings(session_keyring(), user)


@cache
def finder() -> Adopted:
    """Finds the keys in them that sign."""
    around = list(dict.fromkeys(login()))
    return Adopted(lambda: around, lambda: None)


class Share(NamedTuple):
    """A key of ours, as it is in the keyring of another user who may sign with it."""

    receiver: str
    found: Found


def inboxes() -> Iterator[tuple[int, Keyring]]:
    """The keyrings in which other users take keys from us, and whose they are."""
    wanted = Giver(os.getuid(), user_name(os.getuid())).inbox
    for key in dict.fromkeys(line.key for line in listed()):
        try:
            about = key.describe()
            if (about.type, about.description) == ("keyring", wanted) and about.uid != os.getuid():
                yield about.uid, Keyring(key.serial)
        except KernelKeyError:
            continue


def shares() -> list[Share]:
    """What we share, and with whom."""
    return [
        Share(user_name(uid), found) for uid, inbox in inboxes() for found in finder().within(inbox)
    ]


@cache
def user_name(uid: int) -> str:
    """The name, or where there is none the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def user_named(name: str) -> pwd.struct_passwd:
    """The user of that name; ends the program if there is none."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        fail(f"kagentctl: there is no user {name}")


def as_line(found: Found) -> str:
    """A key as ssh-add -l lists it."""
    key = PublicKey.parse(found.identity.blob)
    return f"{key.bits} {key.fingerprint()} {printable(found.identity.comment)} ({key.kind})"


def is_meant(identity: Identity, wanted: str) -> bool:
    """Whether `wanted` names it, as MEANT says."""
    fingerprint = PublicKey.parse(identity.blob).fingerprint()
    return wanted in (identity.comment, fingerprint) or identity.blob == _blob(Path(wanted))


def _blob(path: Path) -> bytes | None:
    try:
        return parse_line(path.read_text())[0].blob
    except (OSError, ValueError):
        return None  # no file, or none with a public key
