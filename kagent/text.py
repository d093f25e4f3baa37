"""Text of others, made safe to show: in a question, in the log, on a terminal.

A file name, a comment, a host or a user may be any sequence of characters.  Shown as it came, it
could drive the terminal, make a line, hide what stands beside it, or show nothing and be something.
What a character may do is decided by its category in Unicode (UAX #44, General_Category), so that
what a later Unicode adds is decided too; what isn't shown as itself is shown as Python writes it.

Scripts stay readable, with the marks that they put on letters.
"""

from __future__ import annotations

import re
import unicodedata

# What controls, formats or separates, is half a character, nobody's, or not assigned yet; and marks
# that enclose what stands before them, which no orthography needs.
_NEVER_SHOWN = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Me", "Zl", "Zp", "Zs"))

# Letters, symbols and marks that are blank, or change only how another character looks.  Unicode's
# Default_Ignorable_Code_Point, as far as the categories above don't have it, and the blanks among
# Braille, notes and hieroglyphs, which it doesn't count.
_BLANK = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),  # combining grapheme joiner
        (0x115F, 0x1160),  # Hangul fillers
        (0x17B4, 0x17B5),  # Khmer inherent vowels
        (0x180B, 0x180F),  # Mongolian variation selectors
        (0x2800, 0x2800),  # Braille without a dot
        (0x3164, 0x3164),  # Hangul filler
        (0xFE00, 0xFE0F),  # variation selectors
        (0xFFA0, 0xFFA0),  # halfwidth Hangul filler
        (0xFFFC, 0xFFFC),  # stands for an object that isn't there
        (0x11F48, 0x11F48),  # Kawi space filler
        (0x13441, 0x13442),  # blank hieroglyphs
        (0x16FE4, 0x16FE4),  # Khitan filler
        (0x1D159, 0x1D159),  # a note without a head
        (0xE0100, 0xE01EF),  # variation selectors
    )
    for code in range(first, last + 1)
)

# Vietnamese puts two on a letter, and so do Thai and Hebrew; more pile up over other lines.
_MOST_MARKS = 2

_UNUSUAL = re.compile("[^ -~]+")
_PLAIN_WORD = re.compile(r"[!#-<>-\[\]-~]*")  # printable ASCII without space, quotes, = and \
_FOREIGN_BYTES = re.compile("([\udca0-\udcff]+)")  # as surrogateescape has those from 0xA0

# Some askpass programs take what looks like markup for markup; a name stands in quotes, and an
# arrow between a process and its parent.
_LOOKALIKES = str.maketrans(
    {"<": "‹", ">": "›", "&": "＆"}  # noqa: RUF001
    | dict.fromkeys('"\u02ba\u02dd\u02ee\u05f4\u201c\u201d\u201e\u201f\u2033\u2036\u3003', "'")
    | dict.fromkeys("\u275d\u275e\u2e42\u301d\u301e\u301f\uff02", "'")
    | dict.fromkeys("\u2190\u21d0\u21e6\u27f5\u27f8\u2b05\u2b60\u2b70\u2b98\uffe9", "-")
)


def printable(text: str) -> str:
    """One line of text that can't forge a line, drive a terminal or hide anything.

    A mark is shown on a letter only, and no more than two are.
    """
    # Nearly all is ASCII, but for the arrows between a process and its parent, in every line of the
    # log: that is seen much quicker than what to do about another character.
    plain = text.replace("←", "").replace("→", "")
    if plain.isascii() and plain.isprintable():
        return text
    return _UNUSUAL.sub(_visible, text)


def as_it_came(text: str) -> str:
    """The same, but bytes that aren't UTF-8 stay what they were, if a terminal shows them.

    For who writes them on, as OpenSSH's programs do: others take such a line for one whose
    characters they can't decode.  The bytes that steer a terminal in ISO-8859 are not among them.
    """
    parts = _FOREIGN_BYTES.split(text)
    return "".join(part if place % 2 else printable(part) for place, part in enumerate(parts))


def shown(text: str, most: int = 64) -> str:
    """The same as it may stand in a prompt: at most `most` columns wide, and without what looks
    like a part of the prompt.
    """
    line = " ".join(printable(text).split()).translate(_LOOKALIKES)
    if _width(line) <= most:
        return line
    # Beginning and end: neither alone tells a host or a path from another.
    half = (most - 1) // 2
    end = _beginning(line[::-1], half)[::-1]
    # The letter that a mark belongs to may not have found room.
    while end and unicodedata.category(end[0]).startswith("M"):
        end = end[1:]
    return f"{_beginning(line, most - 1 - half)}…{end}"


def quoted(value: str) -> str:
    """As it is if it is one plain word, else in quotes, so that it can't be taken for more."""
    if _PLAIN_WORD.fullmatch(value):
        return value
    escaped = printable(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _visible(found: re.Match[str]) -> str:
    on_letter = found.start() > 0 and found.string[found.start() - 1].isalpha()
    marks = 0
    made = []
    for character in found[0]:
        category = unicodedata.category(character)
        is_mark = category.startswith("M")
        marks = marks + 1 if category == "Mn" else 0
        if (
            category in _NEVER_SHOWN
            or character in _BLANK
            or (is_mark and not (on_letter and marks <= _MOST_MARKS))
        ):
            made.append(character.encode("unicode_escape").decode())
            on_letter = False
        else:
            made.append(character)
            on_letter = is_mark or category.startswith("L")
    return "".join(made)


def _width(text: str) -> int:
    """Columns on a terminal."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    # UAX #11: an ideograph is as wide as two letters.
    if unicodedata.category(character) == "Mn":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _beginning(text: str, columns: int) -> str:
    """As much of it as has room."""
    for place, character in enumerate(text):
        columns -= _columns(character)
        if columns < 0:
            return text[:place]
    return text
