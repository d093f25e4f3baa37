"""Draws this login's keyrings as keyctl show does, with what is known of the keys that sign; then
the keys that only the agent can see."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from ...custody.adopted import Found
from ...custody.identity import PREFIX
from ...keyctl import Description, KernelKeyError, Key, Keyring, Permission, listed
from ...openssh.times import date, timeframe
from ...protocol.constraints import (
    Confirm,
    ConfirmForwarded,
    Constraint,
    Hop,
    IdleLifetime,
    RestrictDestination,
)
from ...protocol.messages import Shown
from ...protocol.publickey import PublicKey
from ...protocol.wire import ProtocolError
from ...text import printable
from ..client import AgentError, AgentUnavailable, Client, unreachable
from . import keyrings

_SECONDS = 1.0  # between two looks
_FOREVER = 2**64 - 1
_ROOT = 0
_UNUSED = "removed when not used for"
_DEEPEST = 20  # the kernel itself searches six keyrings deep


@dataclass(frozen=True)
class Facts:
    """What is known of a key that signs.  Times are seconds since 1970, `left` as proc_keys(5).

    `listed` is whether the agent lists it.
    """

    fingerprint: str
    type: str
    bits: int
    custody: str
    why: str
    comment: str
    constraints: list[str]
    left: str
    certificate: dict[str, object] | None
    owner: str
    shared_with: list[str]
    listed: bool


@dataclass(frozen=True)
class Node:
    """A key or keyring, and what is below it.

    `rights` is how keyctl show writes them; `note` is why what is below isn't there.
    """

    serial: int
    rights: str
    uid: int
    gid: int
    type: str
    description: str
    left: str
    note: str
    key: Facts | None
    below: list[Node]


@dataclass(frozen=True)
class Picture:
    """Everything there is to show; `agent` has what only the agent can see."""

    keyrings: dict[str, Node]
    agent: list[Facts]
    agent_told: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="as_json", action="store_true", help="for programs")
    form.add_argument("--svg", action="store_true", help="a picture, for a web browser")
    parser.add_argument(
        "--watch", action="store_true", help="again after each change, until Ctrl-C"
    )


def run(*, as_json: bool, svg: bool, watch: bool) -> int:
    """Show it, and with `watch` again after each change until Ctrl-C; the exit code."""
    if svg:
        print(_as_svg(_look()))
        return 0
    before = ""
    while True:
        picture = _look()
        text = json.dumps(asdict(picture), indent=2) if as_json else "\n".join(_drawn(picture))
        if text != before:
            if watch and sys.stdout.isatty():
                sys.stdout.write("\033[H\033[2J")
            print(text, flush=True)
        before = text
        if not watch:
            return 0
        try:
            time.sleep(_SECONDS)
        except KeyboardInterrupt:
            return 0


def _as_svg(picture: Picture) -> str:
    from .drawing import drawn  # which few want

    when = time.strftime("%Y-%m-%d %H:%M:%S")
    return drawn(picture, keyrings.user_name(os.getuid()), when)


def _look() -> Picture:
    rings = keyrings.login()
    left = {line.key.serial: line.left for line in listed()}
    receivers: dict[int, list[str]] = {}
    for name, found in keyrings.shares():
        receivers.setdefault(found.key.serial, []).append(name)
    shown, why_not = _ask_agent()
    agent = [about for one in shown if (about := _shown_facts(one))]
    # Of a key in a keyring the agent may know more than there is to be seen.
    told = {(one.fingerprint, one.type): one.why for one in agent}
    facts = {}
    for found in keyrings.finder().all():
        one = _found_facts(found, left, receivers)
        pair = one.fingerprint, one.type
        why = one.why or told.get(pair, "")
        facts[found.key.serial] = replace(one, why=why, listed=pair in told)
    tree = _Tree(left, facts)
    drawn = {"Session Keyring": tree.node(rings.session.serial)}
    if rings.user.serial not in tree.drawn:
        drawn["User Keyring"] = tree.node(rings.user.serial)
    known = {(one.fingerprint, one.type) for key, one in facts.items() if key in tree.drawn}
    return Picture(
        {title: node for title, node in drawn.items() if node},
        [one for one in agent if (one.fingerprint, one.type) not in known],
        why_not,
    )


def _ask_agent() -> tuple[tuple[Shown, ...], str]:
    """Its identities, and why there are none if it can't be asked."""
    try:
        with Client() as client:
            try:
                return client.shown(), ""
            except (AgentError, ProtocolError):
                return (), client.why_not_shown()
    except AgentUnavailable as error:
        return (), unreachable(error)


class _Tree:
    """Keyrings drawn as a tree, which they need not be: anybody may link what they own into
    whatever they may write to, over and over.

    So what a keyring holds is drawn once.  What another user's holds isn't drawn at all: kagent
    uses no key that lies there, and how much it is, is up to that user.  Of the two keyrings to
    begin with, it is drawn whoever owns them: a login may have been given root's.
    """

    def __init__(self, left: dict[int, str], facts: dict[int, Facts]) -> None:
        self._left = left
        self._facts = facts
        self.drawn: set[int] = set()

    def node(self, serial: int, depth: int = 0) -> Node | None:
        """The key and what is below it; None if it can't be seen."""
        try:
            about = Key(serial).describe()
        except KernelKeyError:
            return None
        note, below = "", []
        if about.type == "keyring":
            note = self._why_not(serial, about, depth)
            below = [] if note else self._below(serial, depth)
        else:
            self.drawn.add(serial)
        return Node(
            serial,
            _rights(about),
            about.uid,
            about.gid,
            about.type,
            about.description,
            _time_left(self._left.get(serial, "")),
            note,
            self._facts.get(serial),
            below,
        )

    def _why_not(self, serial: int, about: Description, depth: int) -> str:
        """Why what a keyring holds isn't drawn here; empty if it is."""
        if serial in self.drawn:
            return "shown above"
        if depth and about.uid not in (os.getuid(), _ROOT):
            return "another user's: not looked into"
        return "too deep to be drawn" if depth >= _DEEPEST else ""

    def _below(self, serial: int, depth: int) -> list[Node]:
        self.drawn.add(serial)  # before what is in it, where it may come again
        try:
            serials = Keyring(serial).keys()
        except KernelKeyError:
            return []
        return [node for one in serials if (node := self.node(one, depth + 1))]


def _rights(about: Description) -> str:
    """The possessor's, and what this user has anyway."""
    own = 16 if about.uid == os.getuid() else 0
    mask = about.permissions >> 24 | about.permissions >> own
    letters = zip(
        "alswrv",
        (
            Permission.SETATTR,
            Permission.LINK,
            Permission.SEARCH,
            Permission.WRITE,
            Permission.READ,
            Permission.VIEW,
        ),
        strict=True,
    )
    return "--" + "".join(letter if mask & right else "-" for letter, right in letters)


def _found_facts(found: Found, left: dict[int, str], receivers: dict[int, list[str]]) -> Facts:
    identity = found.identity
    return _facts(
        Shown(identity.blob, identity.comment, identity.custody, "", identity.constraints, 0),
        _time_left(left.get(found.key.serial, "")),
        keyrings.user_name(found.uid),
        receivers.get(found.key.serial, []),
    )


def _shown_facts(shown: Shown) -> Facts | None:
    """None for a type of key that this version doesn't know."""
    left = f"{max(0, shown.expires - int(time.time()))}s" if shown.expires else ""
    try:
        return _facts(shown, left, keyrings.user_name(os.getuid()), [])
    except ProtocolError:
        return None


def _facts(shown: Shown, left: str, owner: str, receivers: list[str]) -> Facts:
    key = PublicKey.parse(shown.blob)
    certificate: dict[str, object] | None = None
    if key.certificate:
        certificate = {
            "id": printable(key.certificate.key_id),
            "serial": key.certificate.serial,
            "principals": [printable(name) for name in key.certificate.principals],
            "valid_after": key.certificate.valid_after,
            "valid_before": key.certificate.valid_before,
        }
    return Facts(
        key.fingerprint(),
        key.kind,
        key.bits,
        printable(shown.custody),
        printable(shown.why),
        printable(shown.comment),
        [text for one in shown.constraints for text in _constraint(one)],
        left,
        certificate,
        owner,
        receivers,
        listed=True,
    )


def _time_left(left: str) -> str:
    return {"perm": "", "expd": "expired"}.get(left, left)


def _constraint(one: Constraint) -> Iterator[str]:
    if isinstance(one, Confirm):
        yield "confirm each use"
    elif isinstance(one, ConfirmForwarded):
        yield "confirm each use that is forwarded"
    elif isinstance(one, IdleLifetime):
        yield f"{_UNUSED} {timeframe(one.seconds)}"
    elif isinstance(one, RestrictDestination):
        for hop in one.hops:
            yield f"only {_hop(hop.origin)} → {_hop(hop.target)}"


def _hop(hop: Hop) -> str:
    name = f"{hop.user}@{hop.hostname}" if hop.user else hop.hostname
    return printable(name) or "here"


def _drawn(picture: Picture) -> Iterator[str]:
    for title, node in picture.keyrings.items():
        yield _in_colour(title, 1)
        yield from _drawn_node(node, "", "", " ")
    if picture.agent_told:
        yield f"Nothing from the agent: {picture.agent_told}"
    elif picture.agent:
        yield _in_colour("Only the agent's", 1)
        for facts in picture.agent:
            yield from (f"{' ' * 35}{line}" for line in _drawn_facts(facts))


def _drawn_node(node: Node, indent: str, mark: str, inner: str) -> Iterator[str]:
    """`indent` and `mark` go before the node, `inner` before what is below it."""
    yield (
        f"{node.serial:10} {node.rights} {node.uid:6} {node.gid:5}  {indent}{mark}"
        f"{node.type}: {printable(node.description)}"
        + (f"  ({node.left} left)" if node.left and not node.key else "")
        + (f"  ({node.note})" if node.note else "")
    )
    for below in node.below:
        last = below is node.below[-1]
        yield from _drawn_node(below, inner, "\\_ ", inner + ("    " if last else "|   "))
    if node.key:
        for line in _drawn_facts(node.key):
            yield f"{' ' * 36}{inner}{line}"


def _drawn_facts(facts: Facts) -> Iterator[str]:
    comment = "" if facts.comment.startswith(PREFIX) else f" {facts.comment}"
    yield _in_colour(f"{facts.bits} {facts.fingerprint}{comment} ({facts.type})", 32)
    parts = [f"custody {facts.custody}" + (f" ({facts.why})" if facts.why else "")]
    if facts.left:
        unused = any(one.startswith(_UNUSED) for one in facts.constraints)
        parts.append(f"{facts.left} left" + (" if it isn't used" if unused else ""))
    parts += facts.constraints
    if facts.owner != keyrings.user_name(os.getuid()):
        parts.append(f"owner {facts.owner}")
    if facts.shared_with:
        parts.append(f"shared with {', '.join(facts.shared_with)}")
    if facts.certificate:
        parts.append(_validity(facts.certificate))
    yield "; ".join(parts)


def _validity(certificate: dict[str, object]) -> str:
    start, end = certificate["valid_after"], certificate["valid_before"]
    valid = "valid forever"
    if (start, end) != (0, _FOREVER):
        valid = f"valid from {_date(start)} to {_date(end)}"
    return f"certificate {certificate['id']!r} {valid}"


def _date(seconds: object) -> str:
    if seconds == _FOREVER:
        return "forever"
    return date(int(str(seconds)), "%Y-%m-%d %H:%M UTC")


def _in_colour(text: str, code: int) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{code}m{text}\033[0m"
