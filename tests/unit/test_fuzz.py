"""The targets of contrib/fuzz, with their examples and with what is near them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kagent.openssh import hostkeys
from kagent.private.keyfile import KeyFileError, parse
from kagent.protocol.publickey import parse_line
from tests.fuzz.targets import PASSPHRASE, TARGETS, Target
from tests.machine.openssh import programs

CORPUS = Path(TARGETS["frames"].corpus).parent
# What a length, a number or a text may be near.
PIECES = [
    b"\0",
    b"\xff",
    bytes(4),
    b"\0\0\0\1",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\n",
    b" ",
]


@st.composite
def near(draw: st.DrawFn, examples: list[bytes]) -> bytes:
    """An example, changed in a few places; or anything."""
    data = bytearray(draw(st.sampled_from(examples) | st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 1, 1, 4, 20])))
        other = draw(st.sampled_from(examples))
        piece = st.sampled_from([*PIECES, other, other[begin:], bytes(data[begin:])])
        data[begin:end] = draw(piece | st.binary(max_size=4) | st.just(b""))
    return bytes(data)


@pytest.fixture(params=TARGETS.values(), ids=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    target: Target = request.param
    if target.needs_root and os.getuid() != 0:
        pytest.skip("what it reads has to be root's")
    return target


def test_examples(target: Target) -> None:
    for data in target.examples:
        target.run(data)


def test_near_examples(target: Target) -> None:
    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(near(target.examples))
    def run(data: bytes) -> None:
        target.run(data)

    run()


def test_each_example_has_a_reason() -> None:
    lines = (CORPUS / "REASONS").read_text().splitlines()
    told = [line.partition(": ")[0] for line in lines]
    files = [str(path.relative_to(CORPUS)) for path in CORPUS.glob("*/*")]
    assert sorted(told) == sorted(files)
    assert {Path(file).parts[0] for file in files} == set(TARGETS)


def keygen(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs() / "ssh-keygen", *words], capture_output=True, text=True, input=""
    )


def copies(name: str, folder: Path) -> list[Path]:
    """That target's examples, as only their owner may read them."""
    made = []
    for path in sorted(TARGETS[name].corpus.iterdir()):
        copy = folder / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        made.append(copy)
    return made


def test_ssh_keygen_finds_the_same_hosts(tmp_path: Path) -> None:
    for path in copies("known-hosts", tmp_path):
        told = keygen("-F", "host", "-f", path).stdout.splitlines()
        theirs = [int(line.split()[5]) for line in told if line.startswith("# Host ")]
        ours = [*hostkeys.keys_of(path.read_bytes(), "host")]
        # It doesn't look at a key of a type that it knows.
        assert [line.number for line in ours if line.key or line.number in theirs] == theirs


@pytest.mark.parametrize("name", ["openssh-keys", "pem-keys"])
def test_ssh_keygen_opens_the_same_keys(name: str, tmp_path: Path) -> None:
    for path in copies(name, tmp_path):
        told = keygen("-y", "-P", PASSPHRASE.decode(), "-f", path)
        try:
            key, _ = parse(path.read_bytes(), PASSPHRASE)
        except KeyFileError:
            assert told.returncode, path.name
        else:
            assert parse_line(told.stdout)[0].blob == key.public_blob, path.name


def test_ssh_keygen_reads_the_same_public_keys(tmp_path: Path) -> None:
    for path in copies("public-lines", tmp_path):
        told = keygen("-l", "-f", path)
        try:
            key, _ = parse_line(path.read_text())
        except ValueError:
            assert told.returncode, path.name
        else:
            assert told.stdout.split()[1] == key.fingerprint()
