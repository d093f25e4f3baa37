"""What kagentctl show finds, as a picture: SVG, for light and dark viewers.

On the left are processes, on the right keyrings with their keys in them, and the lines say who
possesses what.  Nothing of it is looked up here, and every text is made safe before it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from ...custody.identity import PREFIX, Custody
from ...jobs import roles
from ...jobs.roles import Role
from ...openssh.times import timeframe
from ...text import printable, shown
from .show import Facts, Node, Picture

_MARGIN = 24
_LEFT, _LEFT_WIDTH = _MARGIN, 216  # the processes
_RIGHT, _RIGHT_WIDTH = 336, 560  # the keyrings
_WIDTH = _RIGHT + _RIGHT_WIDTH + _MARGIN
_TOP = 92
_GAP, _INDENT = 16, 12
_HEADING = 34  # of a box
_LINE = 18
_BAR = 5  # at the left of a key: how it is held
_LANE = 11  # between two lines that go up and down
_MOST_PLAIN = 4  # keys that don't sign, of one keyring

# In light and in dark: text has a contrast of 4.5 to 1 with its ground, or more.
_COLOURS = {
    "light": {
        "ground": "#ffffff",
        "box": "#f6f8fa",
        "card": "#ffffff",
        "edge": "#d1d9e0",
        "text": "#59636e",
        "strong": "#1f2328",
        "you": "#0969da",
        "front": "#1a7f37",
        "keeper": "#1b7c83",
        "worker": "#bc4c00",
        "kernel": "#1a7f37",
        "sealed": "#bc4c00",
        "outside": "#8250df",
        "plain": "#8c959f",
    },
    "dark": {
        "ground": "#0d1117",
        "box": "#151b23",
        "card": "#0d1117",
        "edge": "#3d444d",
        "text": "#9198a1",
        "strong": "#f0f6fc",
        "you": "#58a6ff",
        "front": "#3fb950",
        "keeper": "#39c5cf",
        "worker": "#f0883e",
        "kernel": "#3fb950",
        "sealed": "#f0883e",
        "outside": "#ab7df8",
        "plain": "#656c76",
    },
}
_FORMS = """\
    text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
    .title { font-size: 17px; font-weight: 600; }
    .name { font-weight: 600; }
    .small { font-size: 11.5px; }
    .code { font: 11.5px ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace; }
    .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
    .asks { stroke-dasharray: 2 5; stroke-linecap: round; }"""

# How a key is held, by the first word of its custody.
_BARS: dict[str, str] = {Custody.KERNEL: "kernel", Custody.SEALED: "sealed"}
_LEGEND = {
    "kernel": "the kernel signs, and gives the key to nobody",
    "sealed": "ciphertext; a process opens it to sign, and ends",
    "outside": "not here: in a token, or another agent's",
    "plain": "a key of the kernel that signs nothing",
}


class _Box(NamedTuple):
    """A keyring, or what the agent holds in one way, with what is drawn in it.

    `keys` are the names of those that sign.
    """

    title: str
    y: float
    height: float
    drawn: list[str]
    keys: tuple[str, ...] = ()


class _Process(NamedTuple):
    """Possesses the boxes `has`, and asks who is behind the boxes `asks`, by their titles."""

    colour: str
    name: str
    lines: tuple[str, ...]
    has: tuple[str, ...]
    asks: tuple[str, ...] = ()


class _AgentsBox(NamedTuple):
    """What only the agent can see, by custody; `ring` is its name in the table of processes."""

    title: str
    about: str
    ring: str = ""


_UNKNOWN = ""  # a custody that this version doesn't know
_AGENTS: dict[str, _AgentsBox] = {
    Custody.KERNEL: _AgentsBox(
        "Only the agent's", "in keyrings that your programs don't possess", "private"
    ),
    Custody.SEALED: _AgentsBox("Sealed", "what opens them is in a keyring like that", "sealed"),
    Custody.DEVICE: _AgentsBox("FIDO tokens", "only handles are here, no secret"),
    Custody.TOKEN: _AgentsBox("PKCS#11 tokens", "the keys never leave them"),
    Custody.BEHIND: _AgentsBox("Agents behind", "the keys are theirs"),
    _UNKNOWN: _AgentsBox("Held otherwise", "as another version of kagent does"),
}
# Processes that are there as long as the agent; and those that sign, by custody.
_ALWAYS = {"front": roles.FRONT, "keeper": roles.KEEPER}
_SIGNERS = {
    Custody.SEALED: roles.SIGN,
    Custody.DEVICE: roles.DEVICE,
    Custody.TOKEN: roles.TOKEN,
    Custody.BEHIND: roles.RELAY,
}
_IN_WORDS = {
    roles.FRONT: ("serves ssh and git, decides,", "has the kernel sign"),
    roles.KEEPER: ("holds the keyrings,", "starts all the others"),
    roles.SIGN: ("opens a sealed key, signs for a", "tenth of a second, and ends"),
    roles.DEVICE: ("has a token sign, and ends",),
    roles.TOKEN: ("talks to a token's library",),
    roles.RELAY: ("asks an agent behind, and ends",),
}


def drawn(picture: Picture, user: str, when: str) -> str:
    """The SVG."""
    boxes = list(_boxes(picture))
    processes = list(_processes(picture, [box.title for box in boxes]))
    foot: float = _TOP if not boxes else boxes[-1].y + boxes[-1].height
    parts: list[str] = []
    y: float = _TOP
    starts = []
    for one in processes:
        height = 2 * _half(one)
        parts += _process(one, y, height)
        starts.append(y + height / 2)
        y += height + (_GAP if starts[1:] else 2 * _GAP)
    for box in boxes:
        parts += box.drawn
    parts += _lines(processes, starts, boxes)
    if len(processes) > 1:
        x, (above, below) = _LEFT + 24, starts[:2]
        y_from, y_to = above + _half(processes[0]), below - _half(processes[1])
        parts.append(f'  <path class="line you asks" d="M{x} {y_from + 3:.1f}V{y_to - 1:.1f}"/>')
        parts.append(_text(x + 10, (y_from + y_to) / 2 + 4, "SSH_AUTH_SOCK", "code"))
    bars = [name for name in _LEGEND if f'class="{name}"' in "".join(parts)]
    bottom = max(foot, y - _GAP) + 30
    told = f"The agent tells nothing: {picture.agent_told}" if picture.agent_told else ""
    legend = list(_legend(bars, shown(told, 110), bottom))
    height = bottom + _LINE * ((len(bars) + 1) // 2 + 1 + bool(told)) + 8
    title = f"Keys of {shown(user, 30)}, and who possesses them"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
            f'width="{_WIDTH}" height="{height:.0f}" role="img" aria-labelledby="title about">',
            f'  <title id="title">{escape(title)}</title>',
            f'  <desc id="about">{escape(_in_words(processes, boxes))}</desc>',
            f"  <style>\n{_style()}\n  </style>",
            f'  <rect class="ground" width="{_WIDTH}" height="{height:.0f}" rx="8"/>',
            _text(_MARGIN, 36, title, "title strong"),
            _text(_MARGIN, 58, f"kagentctl show --svg, {when}", "small"),
            _text(_LEFT, _TOP - 12, "Processes", "small"),
            _text(_RIGHT, _TOP - 12, "Keyrings and keys", "small"),
            *parts,
            *legend,
            "</svg>",
        ]
    )


def _in_words(processes: Sequence[_Process], boxes: Sequence[_Box]) -> str:
    """The same for who can't see it."""
    told = [f"{box.title}: {', '.join(box.keys) or 'nothing that signs'}." for box in boxes]
    for one in processes:
        told += [f"{one.name} has {', '.join(one.has)}."] if one.has else []
        told += [f"{one.name} asks {', '.join(one.asks)} for signatures."] if one.asks else []
    return "\n".join(map(printable, told))


def _style() -> str:
    light, dark = (list(_coloured(colours)) for colours in _COLOURS.values())
    dark = [f"  {rule}" for rule in dark]
    return "\n".join([*light, _FORMS, "    @media (prefers-color-scheme: dark) {", *dark, "    }"])


def _coloured(colours: dict[str, str]) -> Iterator[str]:
    """Rules of CSS, without variables: not all that shows an SVG knows them."""
    yield f"    text {{ fill: {colours['text']}; }}"
    for name, colour in colours.items():
        if name not in ("text", "edge"):
            yield f"    .{name} {{ fill: {colour}; }}"
    for name in ("you", "front", "keeper", "worker"):
        yield f"    .line.{name} {{ fill: none; stroke: {colours[name]}; }}"
    yield f"    .box, .card {{ stroke: {colours['edge']}; }}"


def _boxes(picture: Picture) -> Iterator[_Box]:
    """From above to below: the keyrings of this login, then what only the agent can see."""
    y: float = _TOP
    for title, node in picture.keyrings.items():
        box = _keyring(node, title, _RIGHT, y, _RIGHT_WIDTH)
        yield box
        y += box.height + _GAP
    for custody, about in _AGENTS.items():
        keys = [one for one in picture.agent if _custody(one) == custody]
        if keys:
            parts: list[str] = []
            inner = y + _HEADING
            cards = []
            for one in keys:
                card = _key(one, _RIGHT + _INDENT, inner, _RIGHT_WIDTH - 2 * _INDENT)
                cards.append(card)
                parts += card.drawn
                inner += card.height + 8
            height = inner + _INDENT - 8 - y
            frame = _frame(about.title, about.about, _RIGHT, y, _RIGHT_WIDTH, height)
            names = tuple(name for card in cards for name in card.keys)
            yield _Box(about.title, y, height, [*frame, *parts], names)
            y += height + _GAP


def _keyring(node: Node, title: str, x: float, y: float, width: float) -> _Box:
    """A keyring, and those in it."""
    about = f"{node.serial}" + (f", {node.note}" if node.note else "")
    parts: list[str] = []
    names: list[str] = []
    inner = y + _HEADING
    plain = 0
    for below in node.below:
        if below.type == "keyring":
            box = _keyring(below, below.description, x + _INDENT, inner, width - 2 * _INDENT)
        elif below.key:
            box = _key(below.key, x + _INDENT, inner, width - 2 * _INDENT, below)
        else:
            plain += 1
            if plain > _MOST_PLAIN:
                continue
            box = _plain(below, x + _INDENT, inner, width - 2 * _INDENT)
        parts += box.drawn
        names += box.keys
        inner += box.height + 8
    if plain > _MOST_PLAIN:
        more = f"and {plain - _MOST_PLAIN} more keys that sign nothing"
        parts.append(_text(x + _INDENT, inner + 10, more, "small"))
        inner += _LINE + 4
    height = max(inner + _INDENT - 8 - y, _HEADING) if node.below else _HEADING
    frame = _frame(title, about, x, y, width, height)
    return _Box(title, y, height, [*frame, *parts], tuple(names))


def _frame(
    title: str, about: str, x: float, y: float, width: float, height: float
) -> Iterator[str]:
    yield _rect(x, y, width, height, "box")
    columns = int((width - 24) / 7.2)
    name = shown(title, max(columns - len(about) - 2, 16))
    yield _text(x + _INDENT, y + 22, name, "name strong")
    yield _text(x + width - _INDENT, y + 22, shown(about, 48), "small", anchor="end")


def _key(facts: Facts, x: float, y: float, width: float, node: Node | None = None) -> _Box:
    """A key that signs: what it is called, what it is, and what it may be used for."""
    comment = "" if facts.comment.startswith(PREFIX) else facts.comment
    name = comment or (node.description if node else "") or "(no comment)"
    kind = f"{facts.type} {facts.bits}"
    lines = [facts.fingerprint, *_terms(facts)]
    height = 30 + 17 * len(lines)
    bar = _BARS.get(_custody(facts), "outside")
    columns = int((width - 30) / 7.4)
    parts = [
        *_card(x, y, width, height, bar),
        _text(x + 18, y + 20, shown(name, columns - len(kind) - 4), "name strong"),
        _text(x + width - 12, y + 20, kind, "small", anchor="end"),
        _text(x + 18, y + 38, facts.fingerprint, "code"),
    ]
    for number, line in enumerate(lines[1:]):
        parts.append(_text(x + 18, y + 55 + 17 * number, shown(line, columns), "small"))
    return _Box(name, y, height, parts, (f"{shown(name)} ({kind}, custody {facts.custody})",))


def _terms(facts: Facts) -> Iterator[str]:
    where = f"custody {facts.custody}"
    if facts.left:
        seconds = facts.left.removesuffix("s")
        left = timeframe(int(seconds)) if seconds.isdecimal() else facts.left
        where += f", {left} left"
    if facts.shared_with:
        where += f", shared with {', '.join(facts.shared_with)}"
    yield where
    yield from facts.constraints
    if facts.certificate:
        yield f"certificate {facts.certificate['id']}"


def _plain(node: Node, x: float, y: float, width: float) -> _Box:
    text = shown(f"{node.type}: {node.description}", int((width - 30) / 7.2))
    parts = [*_card(x, y, width, 28, "plain"), _text(x + 18, y + 18, text, "small")]
    return _Box(node.description, y, 28, parts)


def _card(x: float, y: float, width: float, height: float, bar: str) -> Iterator[str]:
    yield _rect(x, y, width, height, "card")
    yield (
        f'  <rect class="{bar}" x="{x + 6:.1f}" y="{y + 6:.1f}" width="{_BAR}" '
        f'height="{height - 12:.1f}" rx="2.5"/>'
    )


def _processes(picture: Picture, titles: Sequence[str]) -> Iterator[_Process]:
    """Those that matter for what there is."""
    rings = list(picture.keyrings)
    words = ("all that runs in this login:", "a shell, ssh, git, keyctl")
    yield _Process("you", "your programs", words, tuple(rings))
    if picture.agent_told:
        return
    # An agent in another login possesses other keyrings: what it lists it can use.
    used = [title for title, node in picture.keyrings.items() if _lists_some(node)]
    for colour, role in _ALWAYS.items():
        yield _role(role, colour, used, titles)
    for custody, role in _SIGNERS.items():
        title = _AGENTS[custody].title
        if title in titles:
            asks = () if _AGENTS[custody].ring in role.possesses else (title,)
            yield _role(role, "worker", (), titles)._replace(asks=asks)


def _role(role: Role, colour: str, used: Sequence[str], titles: Sequence[str]) -> _Process:
    rings = [one.title for one in _AGENTS.values() if one.ring in role.possesses]
    has = tuple(title for title in titles if title in (*used, *rings))
    return _Process(colour, f"kagent's {role.title}", _IN_WORDS[role], has)


def _lists_some(node: Node) -> bool:
    """Whether the agent lists a key of that keyring."""
    return bool(node.key and node.key.listed) or any(map(_lists_some, node.below))


def _custody(facts: Facts) -> str:
    """Its first word: what follows names a library or a socket."""
    word = facts.custody.split(" ")[0]
    return word if word in list(Custody) else _UNKNOWN


def _half(one: _Process) -> float:
    """Of its height."""
    return 15 + 8.5 * len(one.lines)


def _process(one: _Process, y: float, height: float) -> Iterator[str]:
    yield _rect(_LEFT, y, _LEFT_WIDTH, height, "card")
    yield (
        f'  <rect class="{one.colour}" x="{_LEFT + _LEFT_WIDTH - 11}" y="{y + 6:.1f}" '
        f'width="{_BAR}" height="{height - 12:.1f}" rx="2.5"/>'
    )
    yield _text(_LEFT + 12, y + 20, one.name, "name strong")
    for number, line in enumerate(one.lines):
        yield _text(_LEFT + 12, y + 38 + 17 * number, line, "small")


def _lines(
    processes: Sequence[_Process], starts: Sequence[float], boxes: Sequence[_Box]
) -> Iterator[str]:
    """From each process a line to each box, all of one process along a lane of its own."""
    arrived = {box.title: 0 for box in boxes}
    # Where fewest lines cross: workers reach what is below them, and so the last is outermost.
    lanes = sorted(processes, key=lambda one: one.colour == "worker")
    lanes = lanes[:3][::-1] + lanes[3:]
    for one, start in zip(processes, starts, strict=True):
        lane = _RIGHT - 18 - _LANE * lanes.index(one)
        for box in boxes:
            if box.title not in (*one.has, *one.asks):
                continue
            end = box.y + 17 + 9 * arrived[box.title]
            arrived[box.title] += 1
            kind = f"line {one.colour}" + (" asks" if box.title in one.asks else "")
            corner = 5 if end > start else -5
            corner = 0 if abs(end - start) < 10 else corner
            side = abs(corner)
            yield (
                f'  <path class="{kind}" d="M{_LEFT + _LEFT_WIDTH} {start:.1f}H{lane - side}'
                f"q{side} 0 {side} {corner}V{end - corner:.1f}q0 {corner} {side} {corner}"
                f'H{_RIGHT}"/>'
            )
            yield f'  <circle class="{one.colour}" cx="{_RIGHT}" cy="{end:.1f}" r="4"/>'


def _legend(bars: Sequence[str], told: str, y: float) -> Iterator[str]:
    if told:
        yield _text(_MARGIN, y + 10, told, "name strong")
        y += _LINE
    line = "a line leads from a process to what it possesses: it can use that"
    line += "; a dotted one to what it asks"
    yield _text(_MARGIN, y + 10, line, "small")
    for number, name in enumerate(bars):
        x = _MARGIN + (number % 2) * 400
        line_y = y + _LINE * (1 + number // 2)
        place = f'x="{x}" y="{line_y - 1:.1f}" width="{_BAR}" height="13"'
        yield f'  <rect class="{name}" {place} rx="2.5"/>'
        yield _text(x + 14, line_y + 10, _LEGEND[name], "small")


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'  <rect class="{kind}" {place} rx="6"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'  <text {where} class="{kind}">{escape(text)}</text>'
