"""A chart of throughput over the number of clients, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from .figures import Row, Series, Spread

_WIDTH, _HEIGHT = 760, 456
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 644, 84, 344  # of the plot
_LINES = 5  # of the grid, about
_APART = 17  # between two labels

# In light and in dark: each colour has a contrast of 4.5 to 1 with its ground, or more.
_COLOURS = {
    "light": {
        "ground": "#ffffff",
        "grid": "#e4e7eb",
        "text": "#59636e",
        "title": "#1f2328",
        "this": "#0969da",
        "that": "#bc4c00",
    },
    "dark": {
        "ground": "#0d1117",
        "grid": "#2a313c",
        "text": "#9198a1",
        "title": "#f0f6fc",
        "this": "#58a6ff",
        "that": "#f0883e",
    },
}
_FORMS = """\
    text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
    .title { font-size: 17px; font-weight: 600; }
    .name { font-weight: 600; }
    .line { stroke-width: 2.5; stroke-linejoin: round; }
    .band { opacity: 0.16; }"""


def _style() -> str:
    light, dark = (_coloured(colours) for colours in _COLOURS.values())
    dark = (f"  {rule}" for rule in dark)
    return "\n".join([*light, _FORMS, "    @media (prefers-color-scheme: dark) {", *dark, "    }"])


def _coloured(colours: dict[str, str]) -> Iterator[str]:
    """Rules of CSS, without variables: not all that shows an SVG knows them."""
    yield f"    text {{ fill: {colours['text']}; }}"
    for name in ("ground", "title", "this", "that"):
        yield f"    .{name} {{ fill: {colours[name]}; }}"
    yield f"    .grid {{ stroke: {colours['grid']}; }}"
    for name in ("this", "that"):
        yield f"    .line.{name} {{ fill: none; stroke: {colours[name]}; }}"


def chart(rows: Sequence[Row], title: str, where: Sequence[str]) -> str:
    """The rows' throughput over their clients, kagent beside the other; `where` is set below.

    A line is through the medians; the band around it is from quartile to quartile.
    """
    series = [[row.this for row in rows], [row.that for row in rows if row.that]]
    highest = max(Spread.of(one.values).upper for line in series for one in line)
    step = _step(highest)
    top = step * math.ceil(highest / step)
    columns = [_LEFT + (_RIGHT - _LEFT) * at / (len(rows) - 1 or 1) for at in range(len(rows))]

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-labelledby="title about">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="about">{escape(_told(rows))}</desc>',
        f"  <style>\n{_style()}\n  </style>",
        f'  <rect class="ground" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
        _text(24, 34, title, "title"),
        _text(24, 62, "signatures per second"),
    ]
    for number in range(round(top / step) + 1):
        height = y(number * step)
        parts.append(
            f'  <path class="grid" d="M{_LEFT} {height:.1f}H{_RIGHT}"/>\n'
            + _text(_LEFT - 10, height + 4.5, f"{number * step:,}", anchor="end")
        )
    for column, row in zip(columns, rows, strict=True):
        parts.append(_text(column, _BOTTOM + 22, str(row.clients), anchor="middle"))
    parts.append(
        _text((_LEFT + _RIGHT) / 2, _BOTTOM + 44, "clients asking at once", anchor="middle")
    )
    ends = []
    for line, kind in zip(series, ("this", "that"), strict=True):
        spreads = [Spread.of(one.values) for one in line]
        above = [(x, y(spread.upper)) for x, spread in zip(columns, spreads, strict=True)]
        below = [(x, y(spread.lower)) for x, spread in zip(columns, spreads, strict=True)]
        through = [(x, y(spread.median)) for x, spread in zip(columns, spreads, strict=True)]
        band = _points(above + below[::-1])
        parts.append(f'  <polygon class="band {kind}" points="{band}"/>')
        parts.append(f'  <polyline class="line {kind}" points="{_points(through)}"/>')
        for (x, height), one, row in zip(through, line, rows, strict=True):
            told = f"{row.what}: {one.name} {Spread.of(one.values).median:,.0f} /s"
            parts.append(
                f'  <circle cx="{x:.1f}" cy="{height:.1f}" r="4" class="{kind}">'
                f"<title>{escape(told)}</title></circle>"
            )
        ends.append((through[-1][1], line[0].name, kind))
    for height, name, kind in _apart(sorted(ends)):
        parts.append(_text(_RIGHT + 14, height + 4.5, name, f"name {kind}"))
    for number, words in enumerate(where):
        parts.append(_text(24, _HEIGHT - 14 - 18 * (len(where) - 1 - number), words))
    return "\n".join([*parts, "</svg>\n"])


def _told(rows: Sequence[Row]) -> str:
    """What the chart shows, for who can't see it."""

    def median(series: Series) -> str:
        return f"{series.name} {Spread.of(series.values).median:,.0f}"

    points = (
        f"{row.what}: " + ", ".join(median(one) for one in (row.this, row.that) if one)
        for row in rows
    )
    return f"Signatures per second. {'; '.join(points)}."


def _step(highest: float) -> int:
    """Between two lines of the grid: one, two or five, with zeros behind."""
    least = max(highest / _LINES, 1)
    power = 10 ** math.floor(math.log10(least))
    return next(int(power * digit) for digit in (1, 2, 5, 10) if power * digit >= least)


def _apart(ends: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Labels from above to below, so far from each other that each can be read."""
    placed: list[tuple[float, str, str]] = []
    for height, *rest in ends:
        if placed:
            height = max(height, placed[-1][0] + _APART)
        placed.append((height, rest[0], rest[1]))
    return placed


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'  <text {where} class="{kind}">{escape(text)}</text>'
