"""What an agent must do, may do and must not do, whatever has happened to it.

The model knows no kernel and no process.  It keeps what each key is held under, whether a hostile
program may have destroyed it, and whether the agent is locked.  Who destroys may deny the use of a
key; nobody gets one around its constraints.  Moments are in nanoseconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

from kagent.custody.identity import Custody
from kagent.protocol.constraints import (
    Confirm,
    Constraint,
    Lifetime,
    RequireCustody,
    RestrictDestination,
)


class Verdict(Enum):
    """What the model says to a thing that could be done."""

    MUST = auto()
    MAY = auto()
    MUST_NOT = auto()

    def admits(self, done: bool) -> bool:
        return self is Verdict.MAY or done == (self is Verdict.MUST)


MUST, MAY, MUST_NOT = Verdict


class Way(Enum):
    """What is signed, and where the connection leads."""

    HERE = auto()
    LOGIN_TO_A = auto()
    LOGIN_TO_C = auto()


@dataclass(frozen=True)
class Load:
    name: str
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True)
class Remove:
    name: str


@dataclass(frozen=True)
class RemoveAll:
    pass


@dataclass(frozen=True)
class Lock:
    pass


@dataclass(frozen=True)
class Unlock:
    right: bool = True


@dataclass(frozen=True)
class Sign:
    """`yes` is what the user says when asked."""

    name: str
    way: Way = Way.HERE
    yes: bool = False


Request: TypeAlias = Load | Remove | RemoveAll | Lock | Unlock | Sign


class Span(NamedTuple):
    """Between these two moments it happened."""

    begin: int
    end: int


@dataclass(frozen=True)
class Holding:
    """How a key is held.

    `shaken`: it may be gone, or be no use any more.  `away`: a program of the session may have a
    hold of its own on it, which only the key's end takes away.  `place` is its place in the list,
    if that is known.
    """

    custody: Custody
    constraints: tuple[Constraint, ...] = ()
    ends: Span | None = None
    shaken: bool = False
    away: bool = False
    place: int | None = None

    @property
    def open(self) -> bool:
        """Whether the programs of the session have it too."""
        return self.custody is Custody.KERNEL and not self.constraints

    @property
    def confirmed(self) -> bool:
        return Confirm() in self.constraints

    def permits(self, request: Sign) -> bool:
        """Whether the constraints do; the key is for host A if it is for some hosts only."""
        restricted = any(isinstance(one, RestrictDestination) for one in self.constraints)
        allowed = not restricted or request.way is Way.LOGIN_TO_A
        return allowed and (request.yes or not self.confirmed)


class Seen(NamedTuple):
    """How an agent says that it holds a key."""

    custody: Custody
    constraints: tuple[Constraint, ...]


class Wrong(AssertionError):
    """An agent does what the model refuses, or doesn't do what it demands."""


@dataclass
class Model:
    """`signing` has the names of the keys that this kernel signs with."""

    signing: frozenset[str]
    held: dict[str, Holding] = field(default_factory=dict)
    locked: bool = False
    # Without constraints somebody may have these outside of what the agent has a hold on.
    strays: set[str] = field(default_factory=set)
    # Somebody has left something under these names, or what may look like such a key.
    littered: set[str] = field(default_factory=set)
    forged: set[str] = field(default_factory=set)
    # What is in the keyring of open keys may be out of the agent's power, from now on.
    spoiled: bool = False
    _places: int = 0

    def lists(self, name: str, span: Span) -> Verdict:
        if self.locked:
            return MUST_NOT
        return self._there(name, span, name in self.strays or name in self.forged)

    def signs_around(self, name: str) -> Verdict:
        """By a program of the session, which asks the kernel."""
        holding = self.held.get(name)
        if name in self.strays:
            return MAY
        if holding is None or not holding.open:
            return MUST_NOT
        if self.locked:
            return MAY if holding.away else MUST_NOT
        return MAY if holding.shaken else MUST

    def expects(self, request: Request, span: Span) -> Verdict:
        """Whether the request succeeds."""
        if isinstance(request, Unlock):
            return MUST if self.locked and request.right else MUST_NOT
        if self.locked:
            return MUST_NOT
        match request:
            case Sign(name):
                return self._signs(request, span)
            case Load() | RemoveAll():
                return MAY if self.spoiled else MUST
            case Remove(name):
                holding, left = self.held.get(name), name in self.littered
                if self.spoiled or (holding and holding.ends and span.end >= holding.ends.begin):
                    return MAY  # at its end, what is left of it goes in a moment
                return self._there(name, span, left or name in self.strays)
            case Lock():
                return MUST

    def succeeded(self, request: Request, span: Span) -> None:
        match request:
            case Load(name):
                self._hold(name, self._loaded(request, span), span)
            case Remove(name):
                self.held.pop(name, None)
            case RemoveAll():
                self.held.clear()
            case Lock():
                self.locked = True
            case Unlock():
                self.locked = False

    def failed(self, request: Request) -> None:
        """Not all that could be removed has been, say."""
        if self.spoiled and not self.locked and isinstance(request, Load | Remove | RemoveAll):
            self._shake(self._concerned(request))

    def torn(
        self, request: Request, seen: dict[str, Seen] | None, locked: bool, span: Span
    ) -> None:
        """The agent, or a part of it, was killed at work, and says what it holds; None if locked.

        It may be as before, as after, or gone.
        """
        if isinstance(request, Lock | Unlock):
            if locked != self.locked:
                self._check(locked == isinstance(request, Lock), f"{locked} after {request}")
            self.locked = locked
            self.touched()
            return
        self._check(locked == self.locked, f"locked: {locked} after {request}")
        if locked or isinstance(request, Sign):
            return
        assert seen is not None
        for name in self._concerned(request):
            before = self.held.get(name)
            after = self._loaded(request, span) if isinstance(request, Load) else None
            self._settle(name, before, after, seen.get(name))

    def ended(self) -> None:
        """The agent's first process was killed, and another agent started in the session."""
        for name, holding in list(self.held.items()):
            if not holding.open or self.locked:
                del self.held[name]
            if holding.open and (holding.shaken or holding.away):
                self.strays.add(name)
        self.locked = False

    def removed_by_signal(self) -> None:
        """SIGUSR1 removes all keys, locked or not."""
        self.held.clear()

    def touched(self) -> None:
        """Somebody has changed what can be changed by programs of the session: the open keys."""
        self._shake(self.held, away=True)

    def shaken(self, name: str) -> None:
        self._shake([name])

    def left_something(self, name: str, *, like_a_key: bool) -> None:
        """Somebody has put something under a key's name where programs of the session can."""
        self.littered.add(name)
        if like_a_key:
            self.forged.add(name)
        self.touched()

    def spoil(self) -> None:
        """Somebody has taken permissions away, or set a timeout."""
        self.spoiled = True
        self.touched()

    def order(self, span: Span) -> list[str]:
        """The names of those keys whose order in the list is known."""
        known = {
            holding.place: name
            for name, holding in self.held.items()
            if holding.place is not None and self.lists(name, span) is MUST
        }
        return [known[place] for place in sorted(known)]

    def _there(self, name: str, span: Span, otherwise: bool) -> Verdict:
        absent = MAY if otherwise else MUST_NOT
        holding = self.held.get(name)
        if holding is None or (holding.ends and span.begin >= holding.ends.end):
            return absent
        if holding.shaken or (holding.ends and span.end >= holding.ends.begin):
            return MAY
        return MUST

    def _signs(self, request: Sign, span: Span) -> Verdict:
        name = request.name
        there = self._there(name, span, name in self.strays)
        holding = self.held.get(name)
        if there is MUST_NOT or holding is None or holding.permits(request):
            return there
        # If that is gone, a stray one comes to light.
        return MAY if there is MAY and name in self.strays else MUST_NOT

    def _loaded(self, request: Load, span: Span) -> Holding:
        kept, sealed, ends = [], request.name not in self.signing, None
        for one in request.constraints:
            if isinstance(one, RequireCustody):
                sealed = sealed or one.custody == "sealed"
                continue
            kept.append(one)
            if isinstance(one, Lifetime):
                nanoseconds = one.seconds * 10**9
                ends = Span(span.begin + nanoseconds, span.end + nanoseconds)
        custody = Custody.SEALED if sealed else Custody.KERNEL
        return Holding(custody, tuple(kept), ends)

    def _hold(self, name: str, new: Holding, span: Span) -> None:
        before = self._there(name, span, name in self.littered or name in self.strays)
        if before is MUST:
            place = self.held[name].place
        else:
            self._places += 1
            place = self._places if before is MUST_NOT else None
        spoiled = new.open and self.spoiled
        self.held[name] = replace(new, place=place, shaken=spoiled, away=spoiled)

    def _settle(
        self, name: str, before: Holding | None, after: Holding | None, seen: Seen | None
    ) -> None:
        either = [one for one in (before, after) if one]
        possible = [one for one in either if seen == (one.custody, one.constraints)]
        if seen is None:
            # Half of an open key may be left, which the kernel still signs with.
            possible = [before] if before and before.open else []
        elif not possible and name in self.forged | self.strays:
            possible = [before] if before else []
        else:
            self._check(bool(possible), f"{name} is held as {seen}: not {before} nor {after}")
        if not possible:
            self.held.pop(name, None)
            return
        ends = [one.ends for one in possible if one.ends]
        span = Span(min(one.begin for one in ends), max(one.end for one in ends)) if ends else None
        self.held[name] = replace(possible[-1], ends=span, shaken=True, away=True, place=None)

    def _concerned(self, request: Request) -> list[str]:
        return [request.name] if isinstance(request, Load | Remove) else list(self.held)

    def _shake(self, names: Iterable[str], *, away: bool = False) -> None:
        """`away`: those that are open; otherwise whatever it is."""
        for name in list(names):
            if (holding := self.held.get(name)) and (holding.open or not away):
                self.held[name] = replace(
                    holding, shaken=True, away=holding.away or away, place=None
                )

    def _check(self, true: bool, text: str) -> None:
        if not true:
            raise Wrong(text)
