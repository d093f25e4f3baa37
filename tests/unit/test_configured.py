"""Identities that are configured: the files that say so."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kagent.custody.configured import Configuration


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A line of a .pub file for each type."""
    lines = {}
    for kind, bits in (("rsa", "1024"), ("rsa", "1056"), ("ed25519", "256")):
        path = tmp_path / f"{kind}{bits}"
        words = ["-t", kind, "-b", bits, "-N", "", "-C", f"{kind} of {bits}", "-f", path]
        subprocess.run(["ssh-keygen", "-q", *words], check=True)
        lines[path.name] = path.with_suffix(".pub").read_text()
    return lines


def test_read(tmp_path: Path, keys: dict[str, str]) -> None:
    """The system's and the user's together; what can't be used says why, and the rest goes on."""
    system, own = tmp_path / "system", tmp_path / "own"
    system.write_text(f"# deploy keys\n\nkagent:deploy\t {keys['rsa1024']}")
    rsa1024 = keys["rsa1024"].split()
    own.write_text(
        f"kagent:mine {' '.join(rsa1024[:2])}\n"
        f"kagent:odd {keys['rsa1056']}"
        f"kagent:new {keys['ed25519256']}"
        f"{keys['rsa1024']}"
        "kagent:nothing\n"
        "kagent:damaged ssh-rsa AAAA\n"
    )
    read = Configuration.read(system, own, tmp_path / "missing")
    assert [(one.description, one.comment) for one in read.identities] == [
        ("kagent:deploy", "rsa of 1024"),
        ("kagent:mine", "kagent:mine"),
    ]
    assert read.find(read.identities[1].public.blob) == read.identities[0]
    assert read.find(b"another") is None
    whys = {
        2: "the kernel can't sign with this 1056-bit RSA key; it signs with RSA",
        3: "ssh-ed25519: the kernel can't sign with this type of key; it signs",
        4: "not KEY PUBLIC-KEY, as kagent:deploy ssh-rsa AAAA…: ",
        5: "not KEY PUBLIC-KEY",
        6: "not KEY PUBLIC-KEY",
    }
    for (number, why), fault in zip(whys.items(), read.faults, strict=True):
        assert fault.startswith(f"{own}:{number}: {why}"), fault


def test_not_readable(tmp_path: Path) -> None:
    """A folder, and what is no text."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    read = Configuration.read(tmp_path, binary)
    assert read.identities == ()
    assert read.faults[0] == f"{tmp_path}: Is a directory"
    assert read.faults[1].startswith(f"{binary}: 'utf-8' codec can't decode")


def test_nothing_that_blocks_and_no_more_than_fits(tmp_path: Path, keys: dict[str, str]) -> None:
    pipe, many = tmp_path / "pipe", tmp_path / "many"
    os.mkfifo(pipe)
    many.write_text("".join(f"kagent:{number} {keys['rsa1024']}" for number in range(2000)))
    read = Configuration.read(pipe, Path("/dev/zero"), many)
    assert read.faults[:2] == (f"{pipe}: not a file", "/dev/zero: not a file")
    assert len(read.identities) == 98
    assert read.faults[2] == f"{many}:99: more than 100 lines: the rest is left out"
