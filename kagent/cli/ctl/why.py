"""Tells why the agent at SSH_AUTH_SOCK has refused what it refused lately: which key was asked for,
by whom, why it was refused, and what to do; the last one last.  It knows since its start, but for
what it may have forgotten of many: the log has all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from ...openssh.times import date
from ...protocol.messages import (
    RENEWAL,
    STATUS,
    WHY,
    Extension,
    ExtensionResponse,
    PastRefusal,
    Status,
    Type,
    Why,
)
from ...protocol.refusals import Cause
from ...protocol.wire import ProtocolError
from ...text import printable
from ..client import START, AgentError, AgentUnavailable, Client, unreachable
from ..options import fail
from ..steps import Step, step_for
from .units import asleep, of_systemd

_LOAD, _TOKENS = "to hold a key", "to hold a token's keys"
_ASKED = {
    Type.SIGN_REQUEST.name: "a signature",
    Type.ADD_IDENTITY.name: _LOAD,
    Type.ADD_ID_CONSTRAINED.name: _LOAD,
    Type.ADD_SMARTCARD_KEY.name: _TOKENS,
    Type.ADD_SMARTCARD_KEY_CONSTRAINED.name: _TOKENS,
    Type.REMOVE_SMARTCARD_KEY.name: "to remove a token's keys",
    Type.REMOVE_IDENTITY.name: "to remove a key",
    Type.REMOVE_ALL_IDENTITIES.name: "to remove all keys",
    Type.REMOVE_ALL_RSA_IDENTITIES.name: "to remove all keys",
    Type.REQUEST_IDENTITIES.name: "a list of keys",
    Type.LOCK.name: "to lock",
    Type.UNLOCK.name: "to unlock",
    RENEWAL: "to renew a certificate",
    "": "to be served",
}
_NAMED = "the request "  # of an extension, or a message that kagent has no words for
_JOURNAL = "what was refused before, `kagentctl log` shows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--json", dest="as_json", action="store_true", help="for programs")
    parser.add_argument(
        "-n", dest="most", type=int, default=5, metavar="N", help="the last N (default: 5)"
    )


def run(*, as_json: bool, most: int) -> int:
    """Print it; the exit code."""
    if asleep():
        fail(f"kagentctl: the agent isn't running, and has forgotten; {_JOURNAL}")
    try:
        told = _ask()
    except AgentUnavailable as error:
        fail(f"kagentctl: no agent: {unreachable(error)}; {START}")
    last = told.refusals[-most:] if most > 0 else ()
    if as_json:
        about = {"since": told.since, "number": told.number, "refusals": list(map(_facts, last))}
        print(json.dumps(about, indent=2))
        return 0
    if not told.refusals:
        print(f"Nothing was refused since this agent started, {_time(told.since)}; {_JOURNAL}.")
    for one in last:
        print("\n".join(_lines(one)), end="\n\n")
    if last:
        before = told.number - sum(one.times for one in last)
        if before == 0:
            print(f"That is all since this agent started, {_time(told.since)}; {_JOURNAL}.")
        else:
            more = f"kagentctl why -n {len(told.refusals)}" if last != told.refusals else ""
            print(f"{before} more since {_time(told.since)}: {more or 'kagentctl log'}")
    return 0


def _ask() -> Why:
    with Client() as client:
        try:
            answer = client.request(Extension(STATUS, b""), ExtensionResponse)
            if Status.parse(answer.contents).locked:
                unlock = step_for(Cause.LOCKED)
                fail(
                    "kagentctl: the agent is locked: it refuses everything, and tells nothing. "
                    f"{unlock.command} {unlock.why}"
                )
            answer = client.request(Extension(WHY, b""), ExtensionResponse)
            return Why.parse(answer.contents)
        except (AgentError, ProtocolError):
            fail(f"kagentctl: {client.why_not_shown()}; {_JOURNAL} if it was kagent that refused")


def _lines(one: PastRefusal) -> Iterator[str]:
    often = f" ({one.times} times)" if one.times > 1 else ""
    reason = printable(one.reason)
    yield f"{_time(one.at)}  {_request(one)} was refused{often}: {reason}"
    if one.fingerprint:
        yield f"  key   {printable(one.fingerprint)} {printable(one.comment)}".rstrip()
    if one.user:
        yield f"  for   a login as {printable(one.user)}"
    if one.by:
        yield f"  by    {printable(one.by)}"
    if one.hosts or one.forwarded:
        through = "through a forwarded agent, " if one.forwarded else ""
        yield f"  host  {through}{printable(one.hosts) or 'unknown'}"
    step = _step(one)
    yield f"  next  {step.command}"
    yield f"        {step.why}"


def _facts(one: PastRefusal) -> dict[str, object]:
    """All texts of it are safe to be shown, as those of show --json."""
    facts: dict[str, object] = {}
    for name in PastRefusal.__match_args__:
        value = getattr(one, name)
        facts[name] = printable(value) if isinstance(value, str) else value
    return facts | {"next": _step(one)._asdict()}


def _step(one: PastRefusal) -> Step:
    return step_for(one.cause, by_hand=not of_systemd())


def _request(one: PastRefusal) -> str:
    return _ASKED.get(one.request) or _NAMED + printable(one.request)


def _time(seconds: int) -> str:
    return date(seconds, "%Y-%m-%d %H:%M:%S", local=True)
