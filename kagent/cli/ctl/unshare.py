"""Ends at once what `kagentctl share` began.

keyctl setperm KEY 0x00390000    when nobody is to have it any more: it signs for its owner alone,
                                 wherever others have linked it
keyctl unlink KEY INBOX          and the record

While others are to have it still, who has it no longer may have kept it, in a keyring that you
can't see: leave --with out to end it for everybody."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress

from ...custody.adopted import Found
from ...custody.sharing import SHARED, UNSHARED
from ...keyctl import KeyNotFound
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
    hidden = [] if shares and not ended else _shared(wanted)
    still = {one.found.key for one in shares if one not in ended}
    if not ended and not hidden:
        seen = f" with {receiver}, as far as you can see; without --with it ends for all"
        fail(f"kagentctl: {wanted} is not shared{seen if receiver else ''}")
    # First: whatever becomes of the links, and whichever are not to be seen.
    for key in {one.key for one in (*hidden, *(one.found for one in ended))} - still:
        if key.alive:
            key.set_permissions(UNSHARED)
    for name, found in ended:
        for link in filter(None, (found.key, found.record)):
            with suppress(KeyNotFound):  # the receiver has let go of it
                found.keyring.unlink(link)
        print(f"{name} can sign no longer with {keyrings.as_line(found)}")
    for found in hidden if not ended else ():
        print(f"nobody else can sign any longer with {keyrings.as_line(found)}")
    return 0


def _shared(wanted: str) -> list[Found]:
    """What is shared of this login's keys, with whomever."""
    return [
        found
        for found in keyrings.finder().all()
        if found.uid == os.getuid()
        and keyrings.is_meant(found.identity, wanted)
        and found.key.describe().permissions == SHARED
    ]
