"""kagent.toml: what it says of identities, and where what is wrong stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from kagent.configuration.identities import Identities
from kagent.configuration.toml import files
from kagent.jobs.jobs import Rule
from kagent.workers.rules import rules

KEYS = [
    f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter * 43}" for letter in "BCD"
]  # three points, or none: nobody looks
GOOD = f"""
notify = "forwarded"
learn-hosts = false

[[identity]]
public = "{KEYS[0]} me@laptop"
file = "~/.ssh/id_ed25519"
passphrase = ["pass", "show", "ssh"]
lifetime = "8h"
idle = "30m"

[[identity]]
public = "~/two.pub"
hosts = [
  "*.example.org",
]
elsewhere = false
certificate = ["step", "ssh", "certificate"]
renew-before = "5m"
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "two.pub").write_text(f"{KEYS[1]} two\n")
    own = Path(files()[1])
    own.parent.mkdir(parents=True)
    return own


def test_what_it_says(own: Path, tmp_path: Path) -> None:
    own.write_text(GOOD)
    read = Identities.read()
    assert (read.faults, read.notify, read.learn_hosts) == ((), "forwarded", False)
    one, two = read.entries
    assert (one.place, one.comment, one.has_source) == (f"{own}:5", "me@laptop", True)
    assert (one.file, one.passphrase) == (f"{tmp_path}/.ssh/id_ed25519", ("pass", "show", "ssh"))
    assert (one.lifetime, one.idle, one.forwarded) == (8 * 3600, 1800, False)
    assert (two.place, two.comment, two.has_source) == (f"{own}:12", "two", False)
    assert (two.hosts, two.elsewhere, two.renew_before) == (("*.example.org",), False, 300)


def test_what_the_front_has_to_know(own: Path) -> None:
    """Who prints certificates, and of whose use the user is told; no word of all else."""
    told = f"{GOOD}\n[[identity]]\npublic = '{KEYS[2]}'\nnotify = 'always'\n"
    own.write_text(told)
    read = Identities.read()
    _, two, three = (entry.public.blob for entry in read.entries)
    assert rules(read) == (Rule(two, "step", 300, ""), Rule(three, "", 60, "always"))


@pytest.mark.parametrize(
    ("lines", "line", "told"),
    [
        (["[[identity]]", "file = '~/a'"], 1, "public is missing"),
        (["identity = 1"], 1, "identity: is written as [[identity]]"),
        (["[identity]", "public = 'a'"], 1, "identity: is written as [[identity]]"),
        (["notify = 'sometimes'"], 1, "notify: expected 'forwarded', 'always', 'never'"),
        (["learn-hosts = 1"], 1, "learn-hosts: expected true or false, not 1"),
        (["[[identity]]", "public = 'nonsense'"], 2, "public: not a public key line"),
        (["[[identity]]", "", "public = '~/three.pub'"], 3, "three.pub: No such file"),
        (["[[identity]]", f"public = '{KEYS[0]} {'c' * 1001}'"], 2, "a comment of 1001 characters"),
        (["[[identity]]", "pubic = ''"], 2, "unknown word 'pubic'; did you mean 'public'?"),
        (["[[identity]]", "PUBLIC", "file = '/a'", "command = ['b']"], 4, "file and command: a"),
        (["[[identity]]", "PUBLIC", "idle = '1h'"], 3, "idle is for a key that comes from file"),
        (["[[identity]]", "PUBLIC", "file = 'a'"], 3, "file: expected a path from / or ~"),
        (["[[identity]]", "PUBLIC", "file = '/a'", "lifetime = 'x'"], 4, "lifetime: expected a t"),
        (["[[identity]]", "PUBLIC", "file = '/a'", "idle = 4294967296"], 4, "too long a time"),
        (["[[identity]]", "PUBLIC", "hosts = [", "  1", "]"], 3, "hosts: expected a text in quo"),
        (
            ["[[identity]]", "PUBLIC", "elsewhere = false"],
            3,
            "hosts: none are named",
        ),
        (["[[identity]]", "PUBLIC", "file = 3 +"], 3, "Expected newline or end of document"),
    ],
)
def test_what_is_wrong(own: Path, lines: list[str], line: int, told: str) -> None:
    """It is told with its line, and what stands beside it counts."""
    good = f"[[identity]]\npublic = '{KEYS[2]}'\n"
    text = "\n".join(lines).replace("PUBLIC", f"public = '{KEYS[0]}'")
    own.write_text(f"{text}\n")
    [fault] = Identities.read().faults
    assert (fault.file, fault.line) == (str(own), line)
    assert told in fault.what
    if "[[" in text and "+" not in text:
        own.write_text(f"{good}\n{text}\n")
        read = Identities.read()
        assert [entry.public.line() for entry in read.entries] == [KEYS[2]]
        assert [fault.line for fault in read.faults] == [line + 3]


def test_all_that_is_wrong_with_a_table(own: Path) -> None:
    """But not what may only look so, as a word is misspelt."""
    own.write_text("[[identity]]\nfile = 'a'\ncommand = ['b']\nidle = 'x'\n")
    assert [fault.line for fault in Identities.read().faults] == [2, 4, 1, 3]
    own.write_text(f"[[identity]]\npubic = '{KEYS[0]}'\nfil = '/a'\nidle = 0\n")
    assert [fault.line for fault in Identities.read().faults] == [2, 3, 4]
