"""Has kagent fetch the key of a file by itself when it is needed: writes an [[identity]] to your
kagent.toml.  The passphrase is asked for at the first use; then the key stays as long as it is used
now and then."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

from ...configuration import editing
from ...configuration.identities import Identities, of_file
from ...configuration.toml import File
from ...openssh.times import seconds
from ...private.keyfile import KeyFileError, is_encrypted
from ...private.keyfile import public_key as public_half
from ...protocol.publickey import PublicKey
from ...text import as_it_came
from ..add import keyfiles
from ..options import fail
from .asking import obstacle

_IDLE = "1h"
SYSTEMD_CREDS = "/usr/bin/systemd-creds"
_FIRST_OF_USERS = 256  # the systemd that can seal for one user


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("keyfile", help="a private key file, as ssh-keygen makes it")
    parser.add_argument(
        "--idle",
        metavar="TIME",
        default=_IDLE,
        help=f"forget the key when it isn't used for so long: {_IDLE} if nothing is said",
    )
    parser.add_argument("--lifetime", metavar="TIME", help="forget the key after so long anyway")
    parser.add_argument(
        "--forwarded", action="store_true", help="have it fetched for other hosts' requests too"
    )
    parser.add_argument(
        "--tpm", action="store_true", help="fetch it from a copy that only this TPM opens, for you"
    )


def run(*, keyfile: str, idle: str, lifetime: str | None, forwarded: bool, tpm: bool) -> int:
    """Do it; the exit code."""
    path = os.path.abspath(keyfile)
    if path.endswith(".pub"):
        fail(f"kagentctl: {path} is a public key; its private half: {path.removesuffix('.pub')}")
    try:
        path.encode()
    except UnicodeEncodeError:
        fail(f"kagentctl: {path}: its name isn't UTF-8, as kagent.toml is: give it another")
    public, comment, encrypted = _looked_at(path)
    values = {"public": f"{public.line()} {comment}", "file": path, "idle": _time(idle, "--idle")}
    if lifetime:
        values["lifetime"] = _time(lifetime, "--lifetime")
    _refuse_twice(public, path)
    sealed = ""
    if tpm:
        sealed = _seal(path)
        del values["file"]
        values["credential"] = sealed
    try:
        editing.change(lambda content: _with(content, public, values, forwarded=forwarded))
    except (OSError, ValueError, editing.NoHome, _Refused) as error:
        if sealed:
            os.unlink(sealed)
        fail(f"kagentctl: nothing was written: {getattr(error, 'strerror', None) or error}")
    where = f" from {sealed}, which only this TPM opens," if sealed else ""
    asked = "and its passphrase asked for" if encrypted else "and it has no passphrase"
    name = f"{public.fingerprint()} {comment}"
    print(as_it_came(f"{name} is fetched{where} at its first use, {asked}"))
    print(as_it_came(f"wrote {editing.own_file()}; to undo it: kagentctl forget-source {keyfile}"))
    if encrypted and (unable := obstacle()):
        why, step = unable
        sys.stderr.write(
            f"kagentctl: a passphrase can't be asked for yet: {why}. Next:\n"
            f"    {step.command}\n    {step.why}\n"
        )
    return 0


class _Refused(Exception):
    """What would be written isn't what is wanted; says why."""


def _looked_at(path: str) -> tuple[PublicKey, str, bool]:
    """The key's public half and comment, and whether it has a passphrase."""
    try:
        data = keyfiles.private_bytes(path)
        encrypted = is_encrypted(data)
        public, comment = keyfiles.public_key(path)
        _check_pair(public, data, path)
    except keyfiles.TooOpen as error:
        fail(str(error), end="")
    except OSError as error:
        fail(f"kagentctl: {path}: {error.strerror}")
    except KeyFileError as error:
        fail(f"kagentctl: {path}: {error}")
    except keyfiles.Unreadable:
        fail(
            f"kagentctl: {path}.pub is missing, and {path} doesn't tell its public half: "
            f"ssh-keygen -y -f {path} >{path}.pub"
        )
    # A label: of bytes that aren't UTF-8 it has the others.
    told = os.fsencode(comment or os.path.basename(path)).decode(errors="replace")
    return public, told, encrypted


def _check_pair(public: PublicKey, data: bytes, path: str) -> None:
    """Whether it is the private key's, as far as that tells."""
    try:
        own = public_half(data)
    except KeyFileError:
        return
    if own.blob != public.plain_blob:
        fail(
            f"kagentctl: {path}.pub is another key's, not that of {path}: "
            f"ssh-keygen -y -f {path} >{path}.pub"
        )


def _time(text: str, option: str) -> str:
    try:
        if seconds(text) > 0:
            return text
    except ValueError:
        pass
    fail(f"kagentctl: {option} takes a time as in 90s, 30m or 8h, not {text!r}")


def _refuse_twice(public: PublicKey, path: str) -> None:
    for entry in Identities.read().entries:
        if entry.public.blob == public.blob:
            if entry.has_source:
                again = f"kagentctl forget-source {path}, and then this again"
                fail(
                    f"kagentctl: {entry.place}: the key has a source already; to change it: {again}"
                )
            fail(f'kagentctl: {entry.place} is about this key already; add there: file = "{path}"')


def _with(content: str, public: PublicKey, values: dict[str, str], *, forwarded: bool) -> str:
    import tomllib

    path = editing.own_file()
    changed = editing.with_identity(content, values)
    if forwarded:
        changed += "forwarded = true\n"
    try:
        entries, _, faults = of_file(File(path, changed, tomllib.loads(changed)))
    except ValueError as error:
        raise _Refused(f"{path}: {error}; kagentctl check tells more") from error
    mine = [entry for entry in entries if entry.public.blob == public.blob]
    if len(mine) != 1:
        raise _Refused("; ".join(map(str, faults)) or f"{path} has the key already")
    return changed


def _seal(path: str) -> str:
    """A copy that only this machine's TPM opens, for this user; its path."""
    version = _version()
    if version < _FIRST_OF_USERS:
        had = f"here is {version}" if version else "here is none"
        fail(f"kagentctl: --tpm needs systemd {_FIRST_OF_USERS} or later, and {had}")
    try:
        folder = os.path.dirname(editing.own_file())
    except editing.NoHome as error:
        fail(f"kagentctl: {error}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    name = f"{os.path.basename(path)}.cred"
    sealed = f"{folder}/{name}"
    if os.path.exists(sealed):
        fail(f"kagentctl: {sealed} is there already: take it away, or name the key file otherwise")
    # For a user it can only be both: the TPM alone doesn't know who asks.
    encrypt = ["encrypt", "--user", "--with-key=host+tpm2", f"--name={name}", path, sealed]
    before = os.umask(0o077)
    try:
        told = subprocess.run([SYSTEMD_CREDS, *encrypt], stdin=subprocess.DEVNULL)
    finally:
        os.umask(before)
    if told.returncode:
        fail(f"kagentctl: systemd-creds could not seal {path}: leave --tpm out, or see above")
    return sealed


def _version() -> int:
    try:
        told = subprocess.run([SYSTEMD_CREDS, "--version"], capture_output=True, text=True)
    except OSError:
        return 0
    found = re.match(r"systemd (\d+)", told.stdout)
    return int(found[1]) if found else 0
