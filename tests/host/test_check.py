"""kagentctl check and doctor beside kagent itself: what keeps it from starting, they tell."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kagent.protocol.publickey import PublicKey
from tests.hostile.asking import Pair
from tests.hostile.people import somebody
from tests.support.programs import Person


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("burst = [1]", "kagent.toml:1: burst takes what --burst takes, not [1]"),
        ("brst = 1", "kagent.toml:1: unknown word 'brst'; did you mean 'burst'?"),
        ("burst = ", "kagent.toml:1: Invalid value"),
        ('custody = "blue"', "--custody takes kernel or sealed, not 'blue'"),
        ('lifetime = "long"', "Invalid lifetime"),
    ],
)
def test_what_keeps_kagent_from_starting(person: Person, line: str, told: str) -> None:
    person.run("mkdir", "-p", ".config/kagent")
    person.file(".config/kagent/kagent.toml", f"{line}\n")
    started = person.run("kagent", "true", check=False)
    checked = person.run("kagentctl", "check", check=False)
    looked = person.run("kagentctl", "doctor", "--json", check=False)
    assert (started.returncode, checked.returncode, looked.returncode) == (1, 1, 1)
    found = json.loads(looked.stdout)["configuration"]
    assert found["verdict"] == "failure"
    for said in (started.stderr, checked.stdout, found["told"]):
        assert told in said


def test_what_keeps_one_key_from_coming(person: Person) -> None:
    """The others come all the same."""
    person.run("mkdir", "-p", ".config/kagent")
    person.file(".config/kagent/kagent.toml", "[[identity]]\npublic = 'x'\nidle = 'y'\n")
    assert person.run("kagent", "true").returncode == 0
    checked = person.run("kagentctl", "check", check=False)
    assert checked.returncode == 1
    assert [line.split("kagent.toml:")[1][:9] for line in checked.stdout.splitlines()[1:]] == [
        "2: public",
        "3: idle: ",
        "3: idle i",
    ]
    looked = person.run("kagentctl", "doctor", "--json", check=False)
    assert json.loads(looked.stdout)["configuration"]["verdict"] == "warning"


def test_a_key_file_that_can_not_be_read(folder: Path) -> None:
    """By who asks: root can read any."""
    someone = somebody("ordinary", folder) if os.getuid() == 0 else Person.named(None, folder / "h")
    pair = Pair.new()
    key = someone.file("key", pair.file, mode=0)
    someone.run("mkdir", "-p", ".config/kagent")
    entry = f'[[identity]]\npublic = "{PublicKey.parse(pair.blob).line()}"\nfile = "{key}"\n'
    someone.file(".config/kagent/kagent.toml", entry)
    checked = someone.run("kagentctl", "check").stdout
    assert f"warning: file: {key}: Permission denied\n" in checked
