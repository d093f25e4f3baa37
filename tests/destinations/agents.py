"""Agents that are asked: one at a socket, or kagent's rules without an agent around them."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from kagent.custody.identity import Custody, Identity
from kagent.front.destinations import check_signature, check_visible
from kagent.front.sessions import NotPermitted, Sessions
from kagent.jobs.causes import cause_of
from kagent.private.verify import BadSignature, check_bind
from kagent.protocol import messages
from kagent.protocol.messages import (
    SESSION_BIND,
    AddIdConstrained,
    AddIdentity,
    Extension,
    ExtensionFailure,
    Failure,
    IdentitiesAnswer,
    Message,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SessionBind,
    SignRequest,
    SignResponse,
    Success,
    decode,
    encode,
)
from kagent.protocol.publickey import PublicKey
from kagent.protocol.userauth import recognise
from kagent.protocol.wire import ProtocolError
from tests.support.programs import SECONDS

Outcome: TypeAlias = str | tuple[str, ...]
DONE, REFUSED, SIGNED = "done", "refused", "signed"


def outcome(answer: bytes) -> Outcome:
    """The comments of the keys that are listed, or what became of the request."""
    match decode(answer[4:]):
        case IdentitiesAnswer(identities):
            return tuple(one.comment for one in identities)
        case SignResponse():
            return SIGNED
        case Success():
            return DONE
        case _:
            return REFUSED


class Answering(Protocol):
    """An agent, on as many connections as are asked for by number."""

    def ask(self, connection: int, frame: bytes) -> bytes: ...


class AtSocket:
    """An agent at a socket."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._streams: dict[int, socket.socket] = {}

    def __enter__(self) -> AtSocket:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.close()

    def ask(self, connection: int, frame: bytes) -> bytes:
        if connection not in self._streams:
            self._streams[connection] = self._connect()
            self._streams[connection].settimeout(SECONDS)
        stream = self._streams[connection]
        stream.sendall(frame)
        with stream.makefile("rb") as answer:
            header = answer.read(4)
            return header + answer.read(struct.unpack(">I", header)[0])


@dataclass
class Rules:
    """kagent's decisions, with no more of an agent around them than they need."""

    identities: dict[bytes, Identity] = field(default_factory=dict)
    sessions: dict[int, Sessions] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)  # each one's cause, and its reason
    clock: Callable[[], float] = time.time

    def ask(self, connection: int, frame: bytes) -> bytes:
        sessions = self.sessions.setdefault(connection, Sessions())
        try:
            return encode(self._carry_out(sessions, decode(frame[4:])))
        except (NotPermitted, ProtocolError, BadSignature) as error:
            self.refusals.append(f"{cause_of(error)}: {error}")
            return encode(Failure())

    def _carry_out(self, sessions: Sessions, request: Message) -> Message:
        now = self.clock()
        match request:
            case AddIdentity(key, comment):
                return self._add(sessions, Identity(key.public_blob, comment, Custody.SEALED))
            case AddIdConstrained(key, comment, constraints):
                identity = Identity(
                    key.public_blob, comment, Custody.SEALED, constraints=constraints
                )
                return self._add(sessions, identity)
            case RequestIdentities():
                return IdentitiesAnswer(
                    tuple(
                        messages.ListedKey(one.blob, one.comment)
                        for one in self.identities.values()
                        if self._is_visible(sessions, one)
                    )
                )
            case SignRequest(blob, data) if blob in self.identities:
                check_signature(
                    self.identities[blob], sessions, recognise(data, PublicKey.parse(blob)), now
                )
                return SignResponse(b"")
            case RemoveIdentity(blob) if blob in self.identities:
                check_visible(self.identities[blob], sessions, now)
                del self.identities[blob]
                return Success()
            case RemoveAllIdentities():
                self.identities.clear()
                return Success()
            case Extension(name, contents) if name == SESSION_BIND:
                asyncio.run(sessions.bind(contents, _check_bind))
                return Success()
            case Extension():
                return ExtensionFailure()
            case _:
                return Failure()

    def _add(self, sessions: Sessions, identity: Identity) -> Message:
        held = self.identities.get(identity.blob)
        if held is not None:
            check_visible(held, sessions, self.clock())
        self.identities[identity.blob] = identity
        return Success()

    def _is_visible(self, sessions: Sessions, identity: Identity) -> bool:
        try:
            check_visible(identity, sessions, self.clock())
        except NotPermitted as error:
            self.refusals.append(f"{cause_of(error)}: {error}")
            return False
        return True


async def _check_bind(request: SessionBind) -> None:
    check_bind(request)
