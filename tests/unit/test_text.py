"""What others have written, as it is shown: nothing in it drives, forges or hides."""

from __future__ import annotations

import os
import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent import log
from kagent.custody.identity import Custody, Identity
from kagent.front.signature_log import Entry
from kagent.jobs.questions import ClientProcess, Purpose, Question
from kagent.text import as_it_came, printable, quoted, shown
from kagent.workers.wording import worded

# By their names: what is blank or invisible, whatever category it has.
NAMELESS = re.compile(
    r"\b(FILLER|VARIATION SELECTOR|GRAPHEME JOINER|NULL NOTEHEAD|PATTERN BLANK)\b"
)
VISIBLE_FILLERS = re.compile(r"GAP FILLER|LINE FILLER")  # punctuation of Indian scripts

HIDING = {
    "marks on a letter": "a" + "\u0301" * 70,
    "marks on nothing": "\u0301" * 70,
    "a mark on our quote": "\u0308root",
    "an enclosing mark": "a\u20dd",
    "Hangul fillers": "\u3164\u115f\u1160\uffa0",
    "Braille without dots": "\u2800" * 40,
    "zero width joiners": "a\u200db\u200cc\u2060d\ufeff",
    "controls of direction": "\u202egro.elpmaxe\u2066\u2069\u200f\u061c",
    "variation selectors": "a\ufe0f\ufe00\U000e0100\u180b",
    "tags": "a\U000e0067\U000e0062\U000e007f",
    "a soft hyphen": "exam\u00adple",
    "a grapheme joiner": "a\u034fb",
    "spaces that are none": "a\u00a0b\u3000c\u2003d\u1680e",
    "lines that are none": "a\u2028b\u2029c\u0085d",
    "a terminal's": "\x1b[2J\x9b8m\x07",
    "nobody's": "\ue000\U000f0000\u0378",
    "half a character": "\udcff\ud800",
}

# Names as people have them, composed and decomposed.
READABLE = [
    "käse",
    "Nguyễn Văn Tiệp",
    "ключ от дома",
    "Ελληνικά",
    "工作密钥",
    "日本語のかぎ",
    "ガギグ",
    "열쇠",
    "مفتاح العمل",
    "מַפְתֵּחַ",
    "कार्य की कुंजी",
    "กุญแจที่ทำงาน",
    "မြန်မာဘာသာ",
    "🔑 travail n° 1 «privé»",
]

anything = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=("Mn", "Me", "Mc", "Cf", "Zs")),
        st.sampled_from([*"aä\"\\' ́", *"".join(HIDING.values())]),
    )
)


def is_harmless(line: str) -> bool:
    """Whether every character of it is seen, and seen where it stands."""
    categories = [unicodedata.category(character) for character in line]
    return (
        line.isprintable()
        and "Me" not in categories
        and not any(
            NAMELESS.search(name) and not VISIBLE_FILLERS.search(name)
            for name in (unicodedata.name(character, "") for character in line)
        )
        # A mark has a letter before it, or a mark that has one, and there are no three.
        and not any(
            after[0] == "M" and before[0] not in "LM"
            for before, after in pairwise(["Zs", *categories])
        )
        and "MnMnMn" not in "".join(categories)
    )


@pytest.mark.parametrize("text", HIDING.values(), ids=HIDING)
def test_what_hides_is_written_out(text: str) -> None:
    assert not is_harmless(text)
    assert is_harmless(printable(text))
    assert is_harmless(shown(text))


@given(anything)
def test_nothing_hides(text: str) -> None:
    line = printable(text)
    assert is_harmless(line)
    assert printable(line) == line
    assert line == "".join(line.splitlines())


@given(anything, st.integers(3, 80))
def test_in_a_prompt_it_keeps_to_its_place(text: str, most: int) -> None:
    line = shown(text, most)
    assert is_harmless(line)
    assert not set('<>&←"').intersection(line)
    assert columns(line) <= most


def columns(line: str) -> int:
    """As a terminal counts them."""
    seen = [one for one in line if unicodedata.category(one) != "Mn"]
    return len(seen) + sum(unicodedata.east_asian_width(one) in "WF" for one in seen)


def test_every_blank_of_unicode_is_written_out() -> None:
    named = [
        chr(code)
        for code in range(0x110000)
        if NAMELESS.search(name := unicodedata.name(chr(code), ""))
        and not VISIBLE_FILLERS.search(name)
    ]
    assert len(named) > 250
    assert [one for one in named if one in printable(f"a{one}")] == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("text", READABLE)
def test_names_stay_readable(text: str, form: str) -> None:
    name = unicodedata.normalize(form, text)  # type: ignore[arg-type]
    assert printable(name) == name
    assert shown(name) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("me@host", "me@host"),
        ("schöner Schlüssel", "schöner Schlüssel"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202eback", r"\u202eback"),
        ("\u2028line", r"\u2028line"),
        ("far" + " " * 90 + "away", "far away"),
        ("<b>bold</b>&lt;", "‹b›bold‹/b›＆lt;"),  # noqa: RUF001
        ("git ← zsh", "git - zsh"),
        ("root” on “here", "root' on 'here"),
        ("\udcff", r"\udcff"),
        ("a\u0301\u0302\u0303", "a\u0301\u0302\\u0303"),
        ("a" * 64, "a" * 64),
        ("a" * 40 + "z" * 40, "a" * 32 + "…" + "z" * 31),
        ("密" * 32, "密" * 32),
        ("密" * 33, "密" * 16 + "…" + "密" * 15),
        ("密" * 32 + "z" * 30 + "密\u0301", "密" * 16 + "…" + "z" * 29 + "密\u0301"),
    ],
)
def test_what_others_wrote_stays_in_its_place(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_foreign_bytes_stay_if_they_steer_nothing() -> None:
    for byte in range(256):
        came = bytes([byte])
        gone = as_it_came(came.decode("utf-8", "surrogateescape"))
        kept = 0x20 <= byte < 0x7F or byte >= 0xA0
        assert (gone.encode("utf-8", "surrogateescape") == came) == kept
        assert kept or gone.isascii()


def test_a_cut_leaves_no_mark_without_its_letter() -> None:
    assert shown("a" * 10 + "密\u0301b", 4) == "aa…b"


@pytest.mark.parametrize("text", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("purpose", Purpose)
def test_nothing_hides_in_a_question(text: str, purpose: Purpose) -> None:
    client = ClientProcess(os.getpid(), 2**63)
    asked = worded(Question(text, "SHA256:x", client, (), purpose, text)).prompt
    assert all(is_harmless(line) for line in asked.split("\n"))
    assert len(asked.split("\n")) == 4


@pytest.mark.parametrize("text", HIDING.values(), ids=HIDING)
def test_nothing_hides_in_the_log(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    log.configure(to_stderr=True, verbose=False)
    identity = Identity(b"no key", text, Custody.SEALED)
    entry = Entry(None, forwarded=False)
    entry.identity, entry.user, entry.refusal = identity, text, text
    entry.write(None)
    log.info(text)
    lines = capfd.readouterr().err.removesuffix("\n").split("\n")
    assert len(lines) == 2
    assert all(map(is_harmless, lines))
    assert f"comment={quoted(text)}" in lines[0]


@given(anything)
def test_a_value_is_plain_or_in_quotes(text: str) -> None:
    value = quoted(text)
    assert is_harmless(value)
    assert re.fullmatch(r'"(?:[^"\\]|\\.)*"|[^" =\\]*', value)
