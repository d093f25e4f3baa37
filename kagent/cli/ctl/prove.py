"""As root: reads the memory of every process of the agent (all that it has started, too) and says
whether anything of these private keys is in it: RSA's p, q, d, dp, dq and qinv, ECDSA's scalar,
Ed25519's seed and what is made of it, in each order in which libraries keep numbers, whole or in
parts of fifteen bytes.  Beside it, by the same search, a control: a process of its own, before and
after it loads the same keys.  The agent stands still meanwhile, for a second or two.

Exits with 0 if nothing was found but in the control, with 1 if something was, and with 2 if that
can't be told.  Give the agent something to do first, and see that it has the key: ssh-add -T.

    sudo --preserve-env=SSH_AUTH_SOCK "$(command -v kagentctl)" prove ~/.ssh/id_ed25519

What a process keeps encrypted is not found.  So OpenSSH's ssh-agent shows nothing either: it keeps
keys encrypted, beside all that is needed to decrypt them (PROTOCOL: sshkey_shield_private).
kagent's long-lived processes have nothing of the kind."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

from ...confine.memory import lock_memory
from ...confine.process import forbid_core_dumps
from ...private.keyfile import KeyFileError, WrongPassphrase, parse_any
from ...private.library import der, library_key
from ...protocol.messages import (
    STATUS,
    Extension,
    ExtensionResponse,
    IdentitiesAnswer,
    RequestIdentities,
    Status,
)
from ...protocol.privatekey import NamedPrivateKey
from ...protocol.publickey import PublicKey
from ...protocol.wire import ProtocolError
from ...prove.control import Control
from ...prove.examination import Examination, Looked, Verdict, examine
from ...prove.needles import Trace
from ...prove.processes import below, of_agent
from ...text import printable
from ..add import prompt
from ..add.report import Report
from ..client import AgentError, AgentUnavailable, Client, unreachable
from ..options import fail

_NOT_PROVED = 2
_CODES = {Verdict.NOTHING: 0, Verdict.FOUND: 1, Verdict.NOT_PROVED: _NOT_PROVED}
_ROOT_WITH_AGENT = 'sudo --preserve-env=SSH_AUTH_SOCK "$(command -v kagentctl)" prove KEYFILE'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("files", metavar="KEYFILE", nargs="+", help="a private key file")
    parser.add_argument("--pid", type=int, metavar="PID", help="the agent, if not SSH_AUTH_SOCK's")
    parser.add_argument("--json", dest="as_json", action="store_true", help="for programs")


def run(*, files: list[str], pid: int | None, as_json: bool) -> int:
    """Look, and say what was found; the exit code."""
    if os.geteuid() != 0:
        _give_up(f"only root may read an agent's memory: {_ROOT_WITH_AGENT}")
    forbid_core_dumps()
    lock_memory()
    try:
        return _prove(files, pid, as_json=as_json)
    except OSError as error:
        _give_up(error.strerror or str(error))
    except Exception as error:
        # Python's own end would be 1, which means that something was found; and the text of an
        # error could show values of a key.
        _give_up(f"a fault in kagentctl: {type(error).__name__}")


def _prove(files: list[str], pid: int | None, *, as_json: bool) -> int:
    with Control() as control:
        keys = {printable(file): _key(file) for file in files}
        public = {name: PublicKey.parse(key.public_blob) for name, key in keys.items()}
        listed = None
        if pid is None:
            listed, keeper = _asked()
            agent = partial(of_agent, os.environ["SSH_AUTH_SOCK"])
            if keeper and keeper not in [process.pid for process in agent()]:
                _give_up(
                    f"the agent's first process, {keeper}, is none of those that have the socket "
                    "open: it is on another host or in a container; there it can be proved"
                )
        else:
            agent = partial(below, pid)
        done = examine(
            agent,
            {name: (key.key, der(library_key(key))) for name, key in keys.items()},
            control,
        )
    if as_json:
        print(json.dumps(_as_json(public, listed, done), indent=2))
    else:
        print("\n".join(_lines(public, listed, done)))
    return _CODES[done.verdict]


def _give_up(reason: str) -> NoReturn:
    fail(f"kagentctl: not proved: {reason}", _NOT_PROVED)


def _key(file: str) -> NamedPrivateKey:
    name = printable(file)
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        _give_up(f"{name}: {error.strerror}")
    passphrase, question = b"", "Enter passphrase for"
    while True:
        try:
            key = parse_any(data, passphrase)
            break
        except WrongPassphrase:
            passphrase = prompt.passphrase(f"{question} {name}: ", Report())
            question = "Bad passphrase, try again for"
            if not passphrase:
                _give_up(f"{name} is encrypted, and no passphrase was given")
        except KeyFileError as error:
            _give_up(f"{name}: {error}")
    if key.type.startswith("sk-"):
        _give_up(f"{name} is a token's key: there is no secret in it that could be found")
    return key


def _asked() -> tuple[set[bytes], int]:
    """The public keys that the agent offers, and a kagent's first process, or 0."""
    try:
        with Client() as client:
            answer = client.request(RequestIdentities(), IdentitiesAnswer)
            keeper = _keeper(client)
    except AgentUnavailable as error:
        reason = unreachable(error)
        _give_up(reason if str(error) else f"{reason}: {_ROOT_WITH_AGENT}")
    except AgentError as error:
        _give_up(f"the agent doesn't tell which keys it has: {error}")
    return {blob for one in answer.identities if (blob := _plain(one.blob))}, keeper


def _keeper(client: Client) -> int:
    try:
        answer = client.request(Extension(STATUS, b""), ExtensionResponse)
        return Status.parse(answer.contents).keeper
    except (AgentError, ProtocolError):
        return 0


def _plain(blob: bytes) -> bytes | None:
    try:
        return PublicKey.parse(blob).plain_blob
    except ProtocolError:
        return None


def _lines(
    keys: Mapping[str, PublicKey], listed: set[bytes] | None, done: Examination
) -> Iterator[str]:
    for name, key in keys.items():
        yield f"key      {key.bits} {key.fingerprint()} {name} ({key.kind})" + (
            "; the agent doesn't list it now"
            if listed is not None and key.plain_blob not in listed
            else ""
        )
    for one in done.agent:
        yield _line("process", one, _result(one))
    before, after = _result(done.before), _result(done.after)
    yield _line("control", done.after, f"before it loaded the key: {before}; then: {after}")
    match done.verdict:
        case Verdict.NOTHING:
            yield f"nothing of {_these(keys)} is in the agent's memory"
        case Verdict.FOUND:
            yield f"FOUND: something of {_these(keys)} is in the agent's memory"
        case Verdict.NOT_PROVED:
            yield f"not proved: {'; '.join(done.doubts)}"


def _these(keys: Mapping[str, PublicKey]) -> str:
    return "the key" if len(keys) == 1 else f"the {len(keys)} keys"


def _line(what: str, looked: Looked, text: str) -> str:
    process, size = looked.process, looked.seen.size / (1 << 20)
    return f"{what}  {process.pid:7} {printable(process.name):15} {size:6.1f} MiB  {text}"


def _result(looked: Looked) -> str:
    if looked.fault:
        return f"can't be read: {looked.fault}"
    text = _named(looked.seen.found) if looked.seen.found else "nothing"
    if looked.ended:
        text += "; it has ended since, a worker at its work"
    if looked.seen.unread:
        text += f"; {looked.seen.unread >> 10} KiB can't be read"
    return text


def _named(found: Iterable[Trace]) -> str:
    """Numbers by key, and in which forms they are there; no values."""
    parts = []
    for key in sorted({trace.key for trace in found}):
        numbers = {trace.number for trace in found if trace.key == key}
        forms = {trace.form for trace in found if trace.key == key}
        in_order = ", ".join(sorted(numbers, key=lambda number: (len(number), number)))
        parts.append(f"{in_order} of {key} ({', '.join(sorted(forms))})")
    return "; ".join(parts)


def _as_json(
    keys: Mapping[str, PublicKey], listed: set[bytes] | None, done: Examination
) -> dict[str, object]:
    return {
        "verdict": done.verdict,
        "doubts": done.doubts,
        "keys": [
            {
                "name": name,
                "fingerprint": key.fingerprint(),
                "type": key.kind,
                "bits": key.bits,
                "listed": None if listed is None else key.plain_blob in listed,
            }
            for name, key in keys.items()
        ],
        "agent": [_looked_as_json(one) for one in done.agent],
        "control": {
            "before": _looked_as_json(done.before),
            "after": _looked_as_json(done.after),
        },
    }


def _looked_as_json(looked: Looked) -> dict[str, object]:
    return {
        "pid": looked.process.pid,
        "name": looked.process.name,
        "read": looked.seen.size,
        "unread": looked.seen.unread,
        "fault": looked.fault,
        "ended": looked.ended,
        "found": [trace._asdict() for trace in sorted(looked.seen.found)],
    }
