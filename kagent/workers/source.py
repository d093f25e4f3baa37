"""Source workers: get one key from where the user's configuration says, and end.

A process of its own, since it starts programs: ssh-askpass, systemd-creds, and the user's own.  It
has no keyring, and what it has got, mostly still encrypted, it leaves in a socket for a load worker
that starts no programs (`workers/opening.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import NoReturn

from .. import log
from ..configuration.identities import Entry, Identities
from ..files import TooOpen, read_private
from ..jobs.causes import Cause
from ..jobs.jobs import LEFT_OF_SOURCE, Job, Refused, pack_answer
from ..jobs.questions import FromSource
from ..openssh import askpass
from ..private.keyfile import KeyFileError, is_encrypted
from ..protocol.refusals import Explained
from ..text import printable, shown
from . import commands
from .errands import receive
from .opening import Material
from .origins import constraints_of, place_of, source_of

_SECONDS = 130  # of which the user has 120
_LARGEST = 65536  # bytes; an RSA key of 16384 bits has 13,000
_SYSTEMD_CREDS = "/usr/bin/systemd-creds"


class NoKey(Explained):
    """The source gives none; says why."""


def run(job: Job, request: int, client: int, answer: int, target: socket.socket) -> NoReturn:
    """The life of a source worker, from after the fork to its end.

    Its exit code is LEFT_OF_SOURCE if there is something for a load worker.
    """
    code = 0
    try:
        signal.alarm(_SECONDS)
        if (body := receive(request, job.body_length)) is not None:
            wanted = FromSource.parse(body)
            try:
                target.sendall(_fetch(wanted, askpass.Patience((client, answer))).write())
                code = LEFT_OF_SOURCE
            except Explained as error:
                os.write(answer, pack_answer(Refused(error.cause, str(error))))
            except KeyFileError as error:
                os.write(answer, pack_answer(Refused(Cause.INVALID_KEY, str(error))))
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except Exception as error:
        # Not its text: it could show something of a key.
        log.error(f"a source worker failed: {type(error).__name__}")
    finally:
        os._exit(code)


def _fetch(wanted: FromSource, patience: askpass.Patience) -> Material:
    entry = _entry(wanted)
    content = _content(entry, patience)
    passphrase = b""
    if is_encrypted(content):
        passphrase = _passphrase(entry, wanted.details, patience)
        if not passphrase:
            raise NoKey(Cause.SOURCE_PASSPHRASE, "no passphrase was given")
    # Commands take their time too: what is said of the key now is what it is held under.
    if _entry(wanted) != entry:
        raise NoKey(Cause.SOURCE, "its [[identity]] was changed meanwhile")
    return Material(
        entry.public.blob,
        entry.comment,
        constraints_of(entry),
        place_of(entry),
        content,
        passphrase,
    )


def _entry(wanted: FromSource) -> Entry:
    entry = source_of(wanted.blob, Identities.read())
    if entry is None:
        raise NoKey(Cause.SOURCE, "its [[identity]] was taken away meanwhile")
    if wanted.forwarded and not entry.forwarded:
        raise NoKey(Cause.SOURCE_FORWARDED, "a forwarded request may not have it fetched")
    return entry


def _content(entry: Entry, patience: askpass.Patience) -> bytes:
    if entry.file:
        try:
            return read_private(entry.file, _LARGEST)
        except TooOpen as error:
            raise NoKey(Cause.SOURCE_OPEN, f"{entry.file}: {error}") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise NoKey(Cause.SOURCE_FILE, f"{entry.file}: {why}") from error
    if entry.credential:
        decrypt = (_SYSTEMD_CREDS, "decrypt", "--user", entry.credential, "-")
        return _printed(decrypt, patience)
    return _printed(entry.command, patience)


def _passphrase(entry: Entry, details: str, patience: askpass.Patience) -> bytes:
    if entry.passphrase:
        return _printed(entry.passphrase, patience).split(b"\n")[0]
    lines = "".join(f"{printable(line)}\n" for line in details.splitlines())
    name, fingerprint = shown(entry.comment, 80), entry.public.fingerprint()
    question = f"Enter passphrase for key {name}\nKey fingerprint {fingerprint}.\n{lines}"
    return askpass.ask_without_terminal(question, "", patience)


def _printed(words: Sequence[str], patience: askpass.Patience) -> bytes:
    """What that command of the user's prints.  Raises NoKey, Unanswered."""
    environment = commands.environment()
    try:
        # What it complains of isn't logged: it could be anything.
        errors = subprocess.DEVNULL
        with askpass.Running(words, environment, patience, errors=errors, folder="/") as running:
            printed = running.read(_LARGEST + 1)
            code = running.exit_code()
    except OSError as error:
        raise NoKey(Cause.SOURCE_COMMAND, f"{words[0]}: {error.strerror}") from error
    if len(printed) > _LARGEST:
        more = f"{words[0]} gives more than {_LARGEST} bytes, which no key has"
        raise NoKey(Cause.SOURCE_COMMAND, more)
    if code:
        ended = f"{words[0]} ended with {code}; try it by hand: it says why"
        raise NoKey(Cause.SOURCE_COMMAND, ended)
    return printed
