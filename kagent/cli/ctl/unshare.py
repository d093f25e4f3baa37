"""Ends at once what `kagentctl share` began.

keyctl unlink KEY INBOX          and the record
keyctl setperm KEY 0x39010000    when nobody has it any more: as keyctl padd makes it
keyctl revoke KEY                instead, if the other user has closed INBOX to you: then the key
                                 is gone for you too"""

from __future__ import annotations

import argparse
import os

from ...custody.adopted import Found
from ...custody.sharing import SHARED, UNSHARED
from ..options import fail
from . import keyrings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("wanted", metavar="KEY", help=keyrings.MEANT)
    parser.add_argument(
        "--with", dest="receiver", metavar="USER", help="with everybody if left out"
    )


def run(*, wanted: str, receiver: str | None) -> int:
    """End the sharing of a key, with everybody if `receiver` is None; the exit code."""
    shares = [one for one in keyrings.shares() if keyrings.is_meant(one.found.identity, wanted)]
    ended = [one for one in shares if receiver in (None, one.receiver)]
    if not shares and (hidden := _hidden(wanted)):
        for found in hidden:
            found.key.revoke()
            line = keyrings.as_line(found)
            print(f"who has it has closed the keyring: revoked, for you too, is {line}")
        return 0
    if not ended:
        fail(f"kagentctl: {wanted} is not shared{f' with {receiver}' if receiver else ''}")
    for name, found in ended:
        found.keyring.unlink(found.key)
        if found.record:
            found.keyring.unlink(found.record)
        print(f"{name} can sign no longer with {keyrings.as_line(found)}")
    still = {one.found.key for one in keyrings.shares()}
    for key in {one.found.key for one in ended} - still:
        if key.alive:
            key.set_permissions(UNSHARED)
    return 0


def _hidden(wanted: str) -> list[Found]:
    """What is shared, but not in any keyring that we can see."""
    return [
        found
        for found in keyrings.finder().all()
        if found.uid == os.getuid()
        and keyrings.is_meant(found.identity, wanted)
        and found.key.describe().permissions == SHARED
    ]
