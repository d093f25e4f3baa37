"""Lets another user of this machine sign with a key of this login that has no constraints and that
the kernel signs with.  The other user must have run `kagentctl accept --from YOU` before.

  keyctl setperm KEY 0x09390000    who possesses it may view it and sign, no more; its owner keeps
                                   what it takes to take it back
  keyctl link KEY INBOX            INBOX is the other user's keyring kagent:from:UID:YOU
  keyctl link RECORD INBOX         a copy of the record, 0x0b330000: comment and certificate

The other user can't read the key or change it, but can sign with it around any agent, let others
sign, and destroy it (keyctl invalidate needs no more than signing does).  The other user keeps it
when you log out, until you unshare it, remove it, or load it again."""

from __future__ import annotations

import argparse
import os

from ...custody.adopted import Found
from ...custody.sharing import SHARED, SHARED_RECORD
from ...keyctl import PROCESS_KEYRING, KernelKeyError, Keyring
from ..options import fail
from . import keyrings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("wanted", metavar="KEY", help=keyrings.MEANT)
    parser.add_argument("--with", dest="receiver", metavar="USER", required=True)


def run(*, wanted: str, receiver: str) -> int:
    """Let `receiver` sign with a key; the exit code."""
    user, me = keyrings.user_named(receiver), keyrings.user_name(os.getuid())
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
    print(f"{receiver} can sign with {keyrings.as_line(found)}")
    return 0


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
