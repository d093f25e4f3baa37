"""Requests as they may come, well-formed or not, and two agents that are asked the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from kagent.protocol.constraints import PermittedHop

from .agents import REFUSED, Answering, outcome
from .keys import AUTHORITY, CERTIFIED, SECOND, STRANGER, A, B, C, D, Key, hop
from .requests import (
    LIST,
    PLAIN,
    REMOVE_ALL,
    SSHSIG,
    add,
    bind,
    login,
    remove,
    session_of,
    sign,
)

_HOSTS = [A, B, C, D, CERTIFIED]
_OUTDATED = D.certified(AUTHORITY, "d", before=1)
_USERS = ["root", "root", "alice", "müller", ""]
_PATTERNS = ["", "", "", "root", "r*", "?oot", "*o*", "alice", "m??ller"]


@dataclass(frozen=True)
class Step:
    """A request; `fails` tells that a host can't prove itself by it."""

    told: str
    frame: bytes = field(repr=False)
    connection: int = 0
    fails: bool = False


def _seldom(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 7)) == 5


def _hop(draw: st.DrawFn, origin: Key | None, target: Key) -> PermittedHop:
    def authority(host: Key | None) -> Key | None:
        if _seldom(draw):
            return draw(st.sampled_from([None, AUTHORITY, STRANGER, host]))
        return AUTHORITY if host is CERTIFIED else None

    return hop(
        target,
        origin=origin,
        user=draw(st.sampled_from(_PATTERNS)),
        by=authority(target),
        origin_by=authority(origin),
    )


def _hops(draw: st.DrawFn, way: list[Key]) -> tuple[PermittedHop, ...]:
    """Those of a way, but for some, and some others."""
    anywhere = st.sampled_from([None, *_HOSTS])
    needed = [
        _hop(draw, origin, target)
        for origin, target in zip([None, *way], way, strict=False)
        if not _seldom(draw)
    ]
    others = [
        _hop(draw, draw(anywhere), draw(st.sampled_from(_HOSTS)))
        for _ in range(draw(st.integers(0, 2)))
    ]
    return tuple(draw(st.permutations(needed + others)))


def _bind(draw: st.DrawFn, host: Key, number: int, forwarding: bool) -> Step:
    if not _seldom(draw):
        told = f"{'forward to' if forwarding else 'bind to'} {host.name} {number}"
        return Step(told, bind(host, number, forwarding=forwarding))
    other = draw(st.sampled_from(_HOSTS))
    kind = draw(st.sampled_from(["signature", "session", "stale", "key", "long", "empty"]))
    match kind:
        case "session":  # of another host, well signed
            session = session_of(other, draw(st.integers(0, 2)))
            frame = bind(host, session=session, forwarding=forwarding)
        case "empty":
            frame = bind(host, session=b"", forwarding=forwarding)
        case "stale":
            frame = bind(_OUTDATED, number, forwarding=forwarding)
        case "signature":
            made = draw(st.sampled_from([host, STRANGER])).sign(session_of(C))
            frame = bind(host, number, signature=made, forwarding=forwarding)
        case "long":
            frame = bind(host, session=bytes(129), forwarding=forwarding)
        case _:
            frame = bind(replace(host, blob=host.blob[:-1]), number, forwarding=forwarding)
    fails = kind in ("signature", "long", "key")
    return Step(f"{kind} bind to {host.name} {number}, {forwarding=}", frame, fails=fails)


def _sign(draw: st.DrawFn, host: Key, number: int) -> Step:
    user = draw(st.sampled_from(_USERS))
    host_bound = {} if draw(st.booleans()) or draw(st.booleans()) else {"method": PLAIN}
    odd = {}
    if _seldom(draw):
        odd = draw(
            st.sampled_from(
                [
                    {"number": number + 1},
                    {"session": session_of(A)},
                    {"session": b""},
                    {"to": A},
                    {"to": D},
                    {"key": SECOND},
                    {"more": b"\0"},
                    {"with_signature": 0},
                    {"service": "ssh-userauth"},
                    {"message": 5},
                    {"algorithm": "rsa-sha2-256"},
                ]
            )
        )
    given = {"number": number, "user": user} | host_bound | odd
    told = f"sign a login to {host.name} with {given}"
    return Step(told, sign(login(host, **given)))  # type: ignore[arg-type]


@st.composite
def scenarios(draw: st.DrawFn, *, again: bool = True) -> list[Step]:
    """A key that is held, a way to a host, and then what may be asked of an agent.

    `again`: also to hold the key once more.
    """
    kinds = ["list", "sign", "sign", "bind", "remove", "second", "file", *(["add"] * again)]
    way = draw(st.lists(st.sampled_from(_HOSTS), min_size=1, max_size=3))
    steps = [Step("add", add(*_hops(draw, way)))]
    for number, host in enumerate(way):
        forwarding = number < len(way) - 1
        steps.append(_bind(draw, host, number, forwarding != _seldom(draw)))
    for _ in range(draw(st.integers(1, 6))):
        match draw(st.sampled_from(kinds)):
            case "list":
                step = Step("list", LIST)
            case "sign":
                step = _sign(draw, way[-1], len(way) - 1)
            case "bind":
                number = draw(st.integers(0, len(way)))
                host = [*way, draw(st.sampled_from(_HOSTS))][number]
                step = _bind(draw, host, number, draw(st.booleans()))
            case "remove":
                step = Step("remove", remove())
            case "add":
                step = Step("add again", add(*_hops(draw, way)))
            case "second" if again or not any(step.told == "add a second key" for step in steps):
                step = Step("add a second key", add(*_hops(draw, way), key=SECOND))
            case _:
                step = Step("sign a file", sign(SSHSIG))
        steps.append(replace(step, connection=int(_seldom(draw))))
    # What was done blindly shows now.
    return [*steps, Step("list", LIST), Step("list", LIST, connection=1)]


def compare(ours: Answering, theirs: Answering, steps: list[Step]) -> None:
    """The same comes of every request; kagent may only be stricter where a host couldn't prove
    itself.  Older agents aren't then, and what comes after is no longer the same."""
    for agent in (ours, theirs):
        agent.ask(2, REMOVE_ALL)
    failed: set[int] = set()
    for number, step in enumerate(steps):
        mine, other = (outcome(agent.ask(step.connection, step.frame)) for agent in (ours, theirs))
        if step.fails:
            failed.add(step.connection)
        if mine == other:
            continue
        told = f"step {number}, {step}: {mine}, where ssh-agent has {other}"
        assert step.connection in failed, told
        assert mine == REFUSED or set(mine) < set(other), told
        break
