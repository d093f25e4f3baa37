"""kagentctl share, shared, unshare, accept: one user lets another sign with a key.

What each does, in terms of keyctl(1), is in `sharing_help`.
"""

from __future__ import annotations

import os
import pwd

from ...custody.adopted import Found
from ...custody.sharing import INBOX, SHARED, SHARED_RECORD, UNSHARED, Giver, find_inbox
from ...keyctl import PROCESS_KEYRING, KernelKeyError, Keyring
from ...protocol.publickey import PublicKey
from ...text import printable
from ..options import fail
from . import keyrings


def share(wanted: str, receiver: str) -> int:
    """Let `receiver` sign with a key; the exit code."""
    user, me = _user(receiver), keyrings.user_name(os.getuid())
    if user.pw_uid == os.getuid():
        fail("kagentctl: that is you")
    found = _one(wanted)
    if found.identity.constraints:
        fail("kagentctl: it has constraints, which could be stepped around")
    if found.uid != os.getuid():
        fail(f"kagentctl: it belongs to {keyrings.user_name(found.uid)}")
    inbox = next((inbox for uid, inbox in keyrings.inboxes() if uid == user.pw_uid), None)
    if inbox is None:
        fail(
            f"kagentctl: {receiver} takes no keys from you yet; "
            f"{receiver} has to run: kagentctl accept --from {me}"
        )
    about = found.key.describe()
    # Before it is in the other's hands.
    found.key.set_permissions(SHARED)
    try:
        if found.record:
            own = Keyring.special(PROCESS_KEYRING, create=True)
            record = own.add("user", about.description, found.record.read())
            record.set_permissions(SHARED_RECORD)
            inbox.link(record)
        inbox.link(found.key)
    except KernelKeyError:
        found.key.set_permissions(about.permissions)
        raise
    print(f"{receiver} can sign with {_told(found)}")
    return 0


def shared() -> int:
    """List who has what; the exit code."""
    for receiver, found in keyrings.shares():
        print(f"{receiver} can sign with {_told(found)}")
    for found in keyrings.finder().all():
        if found.giver:
            print(f"{found.giver.name} lets you sign with {_told(found)}")
    return 0


def unshare(wanted: str, receiver: str | None) -> int:
    """End the sharing of a key, with everybody if `receiver` is None; the exit code."""
    shares = [one for one in keyrings.shares() if keyrings.is_meant(one.found.identity, wanted)]
    ended = [one for one in shares if receiver in (None, one.receiver)]
    if not shares and (hidden := _hidden(wanted)):
        for found in hidden:
            found.key.revoke()
            print(f"who has it has closed the keyring: revoked, for you too, is {_told(found)}")
        return 0
    if not ended:
        fail(f"kagentctl: {wanted} is not shared{f' with {receiver}' if receiver else ''}")
    for name, found in ended:
        found.keyring.unlink(found.key)
        if found.record:
            found.keyring.unlink(found.record)
        print(f"{name} can sign no longer with {_told(found)}")
    still = {one.found.key for one in keyrings.shares()}
    for key in {one.found.key for one in ended} - still:
        if key.alive:
            key.set_permissions(UNSHARED)
    return 0


def accept(giver: str) -> int:
    """Take keys from `giver`; the exit code."""
    user = _user(giver)
    name = Giver(user.pw_uid, user.pw_name).inbox
    user_keyring = keyrings.login().user
    if find_inbox(user_keyring, name) is None:
        inbox = Keyring.create(name, Keyring.special(PROCESS_KEYRING, create=True))
        inbox.set_permissions(INBOX)
        user_keyring.link(inbox)
    me = keyrings.user_name(os.getuid())
    print(f"{giver} can now run: kagentctl share KEY --with {me}")
    return 0


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        fail(f"kagentctl: there is no user {name}")


def _one(wanted: str) -> Found:
    found = [
        one
        for one in keyrings.finder().all()
        if not one.giver and keyrings.is_meant(one.identity, wanted)
    ]
    match found:
        case [one]:
            return one
        case []:
            fail(
                f"kagentctl: this login's keyrings have no key {wanted} that could be shared: "
                "one that the kernel signs with, and that was loaded without constraints"
            )
        case _:
            fail(f"kagentctl: {wanted} names {len(found)} keys; give a fingerprint")


def _hidden(wanted: str) -> list[Found]:
    """What is shared, but not in any keyring that we can see."""
    return [
        found
        for found in keyrings.finder().all()
        if found.uid == os.getuid()
        and keyrings.is_meant(found.identity, wanted)
        and found.key.describe().permissions == SHARED
    ]


def _told(found: Found) -> str:
    key = PublicKey.parse(found.identity.blob)
    return f"{key.bits} {key.fingerprint()} {printable(found.identity.comment)} ({key.kind})"
