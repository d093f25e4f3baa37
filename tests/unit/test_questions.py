"""Where an ssh goes by its command line, and a question on its way to who asks it."""

from __future__ import annotations

import re
import subprocess

import pytest

from kagent.jobs.questions import Binding, ClientProcess, Purpose, Question
from kagent.openssh.hostnames import Destination
from kagent.protocol.wire import ProtocolError, Reader

QUESTION = Question(
    "käse", "SHA256:x", ClientProcess(4711, 2**63), (Binding(b"key", True),), Purpose.SSHSIG, "git"
)


def test_a_question_is_read_as_it_was_written() -> None:
    assert Question.read(Reader(QUESTION.write())) == QUESTION


def test_a_question_for_an_unknown_purpose_is_refused() -> None:
    written = QUESTION.write().replace(b"\2\0\0\0\3git", b"\x09\0\0\0\3git")
    with pytest.raises(ProtocolError):
        Question.read(Reader(written))


@pytest.mark.parametrize(
    "words",
    [
        "host",
        "user@host command -p 99",
        "-p 2222 host",
        "host -p 2222 -l user",
        "-o Port=2222 -p 3333 host",
        "-oPort=2222 host",
        "-p3333 -o port=2222 host",
        "-AXt -i key -J jump host ls",
        "ssh://user@host:2222",
        "ssh://host/",
        "-p 3333 ssh://host:2222",
        "ssh://host:2222 -p 3333",
        "user@2001:db8::1",
        "user@realm@host",
        "-o HostName=other.example host",
        "-o HostName=%h.example host",
        "-o HostKeyAlias=alias host",
        '-o "HostName other.example" host',
    ],
)
def test_ssh_goes_where_its_command_line_says(words: str) -> None:
    command = ["ssh", *(word.strip('"') for word in re.findall(r'"[^"]*"|\S+', words))]
    told = subprocess.run(
        ["ssh", "-F", "none", "-G", *command[1:]], capture_output=True, text=True, check=True
    )
    said = dict(line.split(" ", 1) for line in told.stdout.splitlines() if " " in line)
    found = Destination.of(command)
    assert found is not None
    assert found.port == said["port"]
    assert found.names[-1] == found.host
    assert said["hostname"] in found.names
    assert said.get("hostkeyalias", found.names[0]) == found.names[0]


@pytest.mark.parametrize("words", [[], ["-V"], ["-p"], ["-z", "host"]])
def test_ssh_goes_nowhere(words: list[str]) -> None:
    assert Destination.of(["ssh", *words]) is None


def test_a_setting_that_is_made_to_be_slow() -> None:
    """It is read in one pass: in more, this would not end."""
    found = Destination.of(["ssh", "-o", "HostName" + " " * 200_000 + "x\nx", "host"])
    assert found is not None
    assert found.names == ("x\nx", "host")
