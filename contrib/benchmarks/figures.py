"""Rows of figures: pairs of measurements, their ratio and its spread, and whether a goal is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """The median and the quartiles around it."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Goal:
    """What a row's figure should be: its ratio, or where there is none or `of_value`, its value."""

    limit: float
    at_least: bool = False
    of_value: bool = False

    def verdict(self, figure: Spread) -> str:
        """`met`, `missed`, or `noise`: the median misses it, and the better quartile doesn't."""
        best = figure.upper if self.at_least else figure.lower
        if self._met_by(figure.median):
            return "met"
        return "noise" if self._met_by(best) else "missed"

    def _met_by(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Series:
    """What was measured, and its values in the order in which they were taken."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One measurement of kagent, alone or in pairs with another: values of one round are a pair."""

    benchmark: str
    what: str
    unit: str
    this: Series
    that: Series | None = None
    goal: Goal | None = None
    clients: int = 1

    @property
    def ratio(self) -> Spread | None:
        """Of this to that, within each pair: what slowed both does no harm."""
        if self.that is None:
            return None
        pairs = zip(self.this.values, self.that.values, strict=True)
        return Spread.of([this / that for this, that in pairs])

    @property
    def verdict(self) -> str:
        """What became of the goal; empty if there is none."""
        if self.goal is None:
            return ""
        ratio = None if self.goal.of_value else self.ratio
        return self.goal.verdict(ratio or Spread.of(self.this.values))

    def to_json(self) -> dict[str, Any]:
        """All of it, with what follows from it, for programs."""
        goal = self.goal
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "unit": self.unit,
            "clients": self.clients,
            "this": _series(self.this),
            "that": _series(self.that) if self.that else None,
            "ratio": self.ratio._asdict() if self.ratio else None,
            "goal": {
                "limit": goal.limit,
                "at_least": goal.at_least,
                "of": "value" if goal.of_value or not self.that else "ratio",
                "verdict": self.verdict,
            }
            if goal
            else None,
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Row:
        """The same row; what follows from the values is reckoned anew."""

        def series(one: dict[str, Any]) -> Series:
            return Series(one["name"], tuple(one["values"]))

        goal, that = told["goal"], told["that"]
        return cls(
            told["benchmark"],
            told["what"],
            told["unit"],
            this=series(told["this"]),
            that=series(that) if that else None,
            goal=Goal(goal["limit"], goal["at_least"], goal["of"] == "value") if goal else None,
            clients=told["clients"],
        )


def _series(series: Series) -> dict[str, Any]:
    spread = Spread.of(series.values)._asdict()
    return {"name": series.name, **spread, "values": list(series.values)}


HEADER = (
    f"{'':58} {'this':>12} {'that':>12}   {'this/that':<21} goal\n"
    f"{'':58} {'median':>12} {'median':>12}   median (quartiles)"
)


def line(row: Row) -> str:
    """A row as a line of the table."""
    what = f"{row.what}: {row.this.name}" + (f" / {row.that.name}" if row.that else "")
    ratio, goal = "", ""
    if spread := row.ratio:
        ratio = f"{spread.median:.2f} ({spread.lower:.2f} to {spread.upper:.2f})"
    if row.goal:
        sign, limit = "≥" if row.goal.at_least else "≤", f"{row.goal.limit:g}"
        goal = f"{sign} {limit}" + ("" if row.that and not row.goal.of_value else f" {row.unit}")
    values = [Spread.of(one.values).median if one else None for one in (row.this, row.that)]
    this, that = ("" if one is None else f"{number(one)} {row.unit}" for one in values)
    verdict = {"missed": "MISSED", "noise": "within the noise"}.get(row.verdict, "")
    return f"{what:58} {this:>12} {that:>12}   {ratio:<21} {goal:<11} {verdict}".rstrip()


def number(value: float) -> str:
    """With three digits at least."""
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"
