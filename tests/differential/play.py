"""Plays sequences to kagent and to ssh-agents, and judges where what becomes of them differs."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from kagent.private.verify import BadSignature, verify
from kagent.protocol.constraints import RestrictDestination
from kagent.protocol.messages import (
    SESSION_BIND,
    AddIdConstrained,
    AddIdentity,
    IdentitiesAnswer,
    RemoveIdentity,
    SignRequest,
    SignResponse,
    Type,
    Unlock,
    decode,
    encode,
)
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import ProtocolError
from tests.destinations.requests import REMOVE_ALL
from tests.machine.openssh import programs
from tests.support.frames import ask, explained
from tests.support.programs import SECONDS, Person, agent, wait_until

from .sequences import Step

# What an agent holds, a signature's algorithm, or the number of another answer; "" for none.
Outcome: TypeAlias = tuple[tuple[bytes, str], ...] | str
ENDED = "ends"
FAILED = (f"{Type.FAILURE:d}", f"{Type.EXTENSION_FAILURE:d}", "")


class Meant(NamedTuple):
    """A difference that is meant: what kagent says to it, and how kagent(1) has it under
    "Differences from ssh-agent"."""

    said: str
    written: str


MEANT = (
    Meant("without a provider", "A FIDO key without a provider"),
    Meant("a destination constraint of 0 hops", "an empty destination constraint"),
    Meant("a lifetime of no seconds", "a lifetime of no seconds"),
    Meant("halves don't fit", "keys whose halves don't fit"),
    Meant("unknown signature flags", "A flag that isn't known, in a request for a signature"),
    Meant("bytes too many", "Bytes behind a session-bind are refused as well"),
    Meant("session id is too long", "A session id longer than any is refused"),
    Meant("is held already, for some hosts only", "can't be loaded again"),
    Meant("an earlier attempt to bind", "A host that couldn't prove itself"),
    Meant("no key of ", "`ssh-add -e` fails where nothing is held through the provider"),
)
CUT_OFF = "to lock or to unlock that is cut off is refused; ssh-agent ends"
ZEROS = "A request names a key by the blob that is listed, to the byte"
UNPROVED = "A host that couldn't prove itself"
UNKNOWN_KEY = "A host key of a type that isn't known, in a destination constraint, is kept"
UNKNOWN_AUTHORITY = "a certificate by such a key is held"
OTHERS_MEANT = (CUT_OFF, ZEROS, UNPROVED, UNKNOWN_KEY, UNKNOWN_AUTHORITY)


class Difference(NamedTuple):
    """What kagent does, and an ssh-agent.  `meant` is how kagent(1) has it, "" if it hasn't."""

    step: Step
    ours: Outcome
    theirs: Outcome
    said: str
    meant: str

    def __str__(self) -> str:
        said = f" ({self.said})" if self.said else ""
        return f"{self.step.told}: kagent {_told(self.ours)}{said}; ssh-agent {_told(self.theirs)}"


def _told(outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return {"": "hangs up"}.get(outcome, outcome)
    return f"lists {[comment for _, comment in outcome]}"


class Player:
    """An agent, started anew where it has ended."""

    def __init__(self, person: Person, program: str | Path, stack: ExitStack) -> None:
        self._start = lambda: stack.enter_context(agent(person, program))
        self._running = self._start()

    @property
    def ended(self) -> bool:
        """Its socket goes before the connections do."""
        return not self._running.socket.exists()

    def connect(self) -> socket.socket:
        if self.ended:
            self._running = self._start()
        return self._running.connect()

    def end(self) -> None:
        self._running.process.terminate()
        wait_until(lambda: self.ended)


class _Connections:
    """To one agent, by number; one that has ended is opened anew."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self._streams: dict[int, socket.socket] = {}

    def stream(self, number: int) -> socket.socket:
        if number not in self._streams:
            self._streams[number] = self.player.connect()
            self._streams[number].settimeout(SECONDS)
        return self._streams[number]

    def ask(self, number: int, frame: bytes) -> bytes:
        answer = ask(self.stream(number), frame)
        if not answer:
            self._streams.pop(number).close()
        return answer

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()


@dataclass
class Players:
    """kagent, and ssh-agents by their names, the newest first: what that does is what counts."""

    kagent: Player
    others: dict[str, Player]
    requests: int = 0
    meant: Counter[str] = field(default_factory=Counter)
    # Where an older ssh-agent does something else, and kagent what the newest does.
    outdated: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, person: Person, stack: ExitStack) -> Players:
        """Those of a person, until `stack` is closed."""
        stocks = {"the newest": programs() / "ssh-agent", "this machine's": "/usr/bin/ssh-agent"}
        others = {name: Player(person, program, stack) for name, program in stocks.items()}
        return cls(Player(person, "kagent", stack), others)

    def play(self, steps: list[Step]) -> Difference | None:
        """The first difference that isn't meant."""
        with ExitStack() as stack:
            ours, *others = (
                stack.enter_context(_connected(one)) for one in (self.kagent, *self.others.values())
            )
            theirs = dict(zip(self.others, others, strict=True))
            failed: set[int] = set()  # connections with a host that didn't prove itself
            for step in steps:
                self.requests += 1
                answer = ours.ask(step.connection, step.frame)
                mine = _outcome(step, answer, self.kagent)
                answers = {
                    name: _outcome(step, one.ask(step.connection, step.frame), one.player)
                    for name, one in theirs.items()
                }
                unproved = step.connection in failed
                if SESSION_BIND.encode() in step.frame and mine in FAILED:
                    failed.add(step.connection)
                for name, other in answers.items():
                    if mine == other:
                        continue
                    if name != next(iter(self.others)) and next(iter(answers.values())) == mine:
                        self.outdated[f"{name}: {_kind(step)}: {_told(other)}"] += 1
                        del theirs[name]
                        continue
                    said = ""
                    if answer and mine in FAILED:
                        said = explained(ours.stream(step.connection))
                    meant = _meant(step, mine, other, said, unproved)
                    difference = Difference(step, mine, other, said, meant)
                    if not meant:
                        return difference
                    self.meant[meant] += 1
                    del theirs[name]  # from here on they hold different keys
                if next(iter(self.others)) not in theirs:
                    return None
        return None


@contextmanager
def _connected(player: Player) -> Iterator[_Connections]:
    """Unlocked, and with nothing held."""
    connections = _Connections(player)
    try:
        for passphrase in (b"one", b"other"):
            if connections.ask(2, REMOVE_ALL)[4:] == bytes((Type.SUCCESS,)):
                break
            connections.ask(2, encode(Unlock(passphrase)))
        else:
            if connections.ask(2, REMOVE_ALL)[4:] != bytes((Type.SUCCESS,)):
                # With a passphrase that was damaged on its way.
                connections.close()
                player.end()
                connections = _Connections(player)
        yield connections
    finally:
        connections.close()


def _outcome(step: Step, answer: bytes, player: Player) -> Outcome:
    match decode(answer[4:]) if answer else None:
        case IdentitiesAnswer(identities):
            return tuple((one.blob, one.comment) for one in identities)
        case SignResponse(signature):
            request = decode(step.frame[4:])
            assert isinstance(request, SignRequest)
            try:
                return verify(PublicKey.parse(request.blob), signature, request.data)
            except (BadSignature, ProtocolError) as error:
                return f"a bad signature: {error}"
        case None:
            return ENDED if player.ended else ""
        case other:
            return f"{other.type:d}"


def _kind(step: Step) -> str:
    number = step.frame[4] if len(step.frame) > 4 else -1
    return Type(number).name if number in [*Type] else f"message {number}"


def _meant(step: Step, ours: Outcome, theirs: Outcome, said: str, unproved: bool) -> str:
    if ours in FAILED and theirs == ENDED:
        return CUT_OFF if step.frame[4] in (Type.LOCK, Type.UNLOCK) else ""
    if ours in FAILED:
        if unproved and "the session is not bound" in said:
            return UNPROVED
        if "no such key" in said:
            return ZEROS if _is_written_otherwise(step.frame) else ""
        return next((one.written for one in MEANT if one.said in said), "")
    lists = isinstance(ours, tuple) and isinstance(theirs, tuple)
    if unproved and lists and set(ours) < set(theirs):
        return UNPROVED
    if theirs in FAILED and ours == f"{Type.SUCCESS:d}":
        return _unknown_to_both(step.frame)
    return ""


def _is_written_otherwise(frame: bytes) -> bool:
    """Whether a request names a key by another blob than it is listed by."""
    message = decode(frame[4:])
    if not isinstance(message, SignRequest | RemoveIdentity):
        return False
    key = PublicKey.parse(message.blob)
    return key.certificate is None and key.about.blob(key.numbers) != key.blob


def _unknown_to_both(frame: bytes) -> str:
    """Whether a key is sent with another that neither agent can check."""
    message = decode(frame[4:])
    if isinstance(message, AddIdentity | AddIdConstrained):
        for one in message.constraints:
            if isinstance(one, RestrictDestination) and not all(
                known.key.known
                for hop in one.hops
                for known in (*hop.origin.keys, *hop.target.keys)
            ):
                return UNKNOWN_KEY
        certificate = PublicKey.parse(message.key.public_blob).certificate
        if certificate and not certificate.authority_key.known:
            return UNKNOWN_AUTHORITY
    return ""
