"""What an agent has: its keys, and the extensions that it knows (ssh-add.c)."""

from __future__ import annotations

import sys

from ...openssh.times import timeframe
from ...protocol.constraints import IdleLifetime
from ...protocol.messages import (
    PRINTED,
    Extension,
    ExtensionResponse,
    IdentitiesAnswer,
    RequestIdentities,
    Shown,
)
from ...protocol.publickey import PublicKey, UnknownKeyType
from ...protocol.wire import TEXT, ProtocolError, Reader, repeated
from ...text import as_it_came, printable
from ..client import AgentError, Client
from .report import FATAL, Report, fatal


def list_identities(client: Client, report: Report, hash_name: str | None) -> bool:
    """Print the keys: their fingerprints, or with no `hash_name` the keys themselves.

    With -v a kagent's keys are each followed by where it lives.  Gives whether there are any.
    """
    try:
        answer = client.request(RequestIdentities(), IdentitiesAnswer)
        keys = [_parsed(identity.blob) for identity in answer.identities]
    except AgentError as error:
        report.tell(f"error fetching identities: {error}")
        report.explain(client)
        return False
    if not keys:
        print("The agent has no identities.")
        return False
    places = _places(client) if report.verbosity and hash_name else {}
    for key, identity in zip(keys, answer.identities, strict=True):
        if key is None:
            continue
        if hash_name is None:
            print(f"{key.line()} {as_it_came(identity.comment)}")
        else:
            comment = as_it_came(identity.comment)
            print(f"{key.bits} {key.fingerprint(hash_name)} {comment} ({key.kind})")
        if place := places.get(identity.blob):
            print(f"    custody {place}")
    return True


def _places(client: Client) -> dict[bytes, str]:
    """Where each key lives, as far as a kagent tells, and how long without being used; and where a
    certificate comes from.
    """
    try:
        return {
            one.blob: printable(one.custody + _origin(one)) + _idle(one) for one in client.shown()
        }
    except (AgentError, ProtocolError):
        return {}  # another agent


def _origin(shown: Shown) -> str:
    return f", {shown.why}" if shown.why.startswith(PRINTED) else ""


def _idle(shown: Shown) -> str:
    spans = [one.seconds for one in shown.constraints if isinstance(one, IdleLifetime)]
    return f"; removed when not used for {timeframe(spans[0])}" if spans else ""


def _parsed(blob: bytes) -> PublicKey | None:
    """None for a type that this version doesn't know.  Raises AgentError."""
    try:
        return PublicKey.parse(blob)
    except UnknownKeyType:
        return None
    except ProtocolError as error:
        raise AgentError("invalid format") from error


def list_extensions(client: Client, report: Report) -> None:
    """Print the names of the extensions that the agent knows; ends the program if it won't say."""
    try:
        answer = client.request(Extension("query", b""), ExtensionResponse)
        if answer.name != "query":
            raise AgentError("invalid format")
        names = repeated(TEXT).read(Reader(answer.contents))
    except AgentError as error:
        report.error(f"unable to query supported extensions: {error}")
        report.explain(client)
        sys.exit(FATAL)
    except ProtocolError:
        fatal("unable to query supported extensions: invalid format")
    for name in names:
        print(printable(name))
