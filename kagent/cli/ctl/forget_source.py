"""Undoes `kagentctl remember`: kagent fetches that key no more.  A copy that was sealed is removed;
the key file stays, and so does the key if it is loaded now (ssh-add -d removes it)."""

from __future__ import annotations

import argparse
import os

from ...configuration import editing
from ...configuration.identities import Entry, of_file
from ...configuration.toml import Fault, read
from ...text import as_it_came
from ..add import keyfiles
from ..options import fail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("key", help="its key file, its fingerprint, or its comment")


def run(*, key: str) -> int:
    """Do it; the exit code."""
    try:
        path = editing.own_file()
    except editing.NoHome as error:
        fail(f"kagentctl: {error}")
    file = read(path)
    if isinstance(file, Fault):
        fail(f"kagentctl: {file}")
    entries = [one for one in of_file(file)[0] if one.has_source] if file else []
    found = [entry for entry in entries if _is_meant(entry, key)]
    if len(found) != 1:
        known = ", ".join(entry.comment for entry in entries) or "none"
        what = "no key" if not found else f"{len(found)} keys"
        fail(as_it_came(f"kagentctl: {path} has {what} {key} with a source; there are: {known}"))
    [entry] = found
    line = int(entry.place.rpartition(":")[2])
    assert file

    def edit(content: str) -> str:
        if content != file.content:
            raise OSError(0, "it was changed meanwhile: try again")
        return editing.without_source(content, line)

    try:
        editing.change(edit)
    except (OSError, ValueError) as error:
        fail(f"kagentctl: {path}: {getattr(error, 'strerror', None) or error}")
    print(as_it_came(f"{entry.public.fingerprint()} {entry.comment} is not fetched any more"))
    sealed = entry.credential
    # What somebody else has sealed may be for more than this.
    if sealed and os.path.dirname(sealed) == os.path.dirname(path) and sealed.endswith(".cred"):
        try:
            os.unlink(sealed)
        except OSError as error:
            fail(f"kagentctl: {sealed}: {error.strerror}")
        print(as_it_came(f"removed {sealed}"))
    return 0


def _is_meant(entry: Entry, key: str) -> bool:
    if key in (entry.comment, entry.public.fingerprint()):
        return True
    path = os.path.abspath(key)
    if path in (entry.file, entry.credential):
        return True
    try:
        return keyfiles.public_key(path.removesuffix(".pub"))[0].blob == entry.public.blob
    except keyfiles.Unreadable:
        return False
