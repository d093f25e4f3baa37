"""Lets another user of this machine give you keys to sign with: your kagent lists them, marked
with their owner.

  keyctl newring kagent:from:UID:USER @u
  keyctl setperm INBOX 0x3f010007  others may see it, read which keys are in it, and write to it,
                                   since the kernel can't name one user who may

Anybody can link keys there; kagent takes none but USER's.  Anybody can also unlink them, which
ends the sharing.  To accept no more: keyctl unlink %:kagent:from:UID:USER @u"""

from __future__ import annotations

import argparse
import os

from ...custody.rings import own_keyring
from ...custody.sharing import INBOX, Giver
from ...keyctl import PROCESS_KEYRING, Keyring
from . import keyrings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--from", dest="giver", metavar="USER", required=True)


def run(*, giver: str) -> int:
    """Take keys from `giver`; the exit code."""
    user = keyrings.user_named(giver)
    name = Giver(user.pw_uid, user.pw_name).inbox
    user_keyring = keyrings.login().user
    if own_keyring(name, user_keyring, INBOX) is None:
        inbox = Keyring.create(name, Keyring.special(PROCESS_KEYRING, create=True))
        inbox.set_permissions(INBOX)
        user_keyring.link(inbox)
    me = keyrings.user_name(os.getuid())
    print(f"{giver} can now run: kagentctl share KEY --with {me}")
    return 0
