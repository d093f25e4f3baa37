"""The table of algorithms against what the newest ssh says of itself."""

from __future__ import annotations

import subprocess

import pytest

from kagent.protocol.algorithms import (
    ALGORITHMS,
    KEY_TYPES,
    PLAIN_TYPES,
    algorithm_of,
    key_type_of,
)
from tests.machine.openssh import programs


def ssh(*words: str) -> list[str]:
    return subprocess.run(
        [programs() / "ssh", *words], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_ssh_knows_them_by_these_names() -> None:
    assert KEY_TYPES.keys() <= set(ssh("-Q", "key-plain"))
    assert PLAIN_TYPES.keys() <= set(ssh("-Q", "key-cert"))
    assert ALGORITHMS.keys() <= set(ssh("-Q", "sig"))
    assert {one.key_type for one in ALGORITHMS.values()} == KEY_TYPES.keys()


def test_which_of_them_certify_a_host() -> None:
    [line] = [line for line in ssh("-G", "-F", "none", "host") if line.startswith("casignature")]
    certify = set(line.split()[1].split(","))
    assert {name for name, one in ALGORITHMS.items() if one.certifies} == certify & set(ALGORITHMS)


@pytest.mark.parametrize(
    ("flags", "algorithm"),
    [(0, "ssh-rsa"), (2, "rsa-sha2-256"), (4, "rsa-sha2-512"), (6, "rsa-sha2-256")],
)
def test_flags_choose_among_those_of_rsa(flags: int, algorithm: str) -> None:
    for meaningless in (0, 1, 8, 9):
        assert algorithm_of("ssh-rsa", flags | meaningless) == algorithm
    assert key_type_of(algorithm) == "ssh-rsa"
    for other in KEY_TYPES.keys() - {"ssh-rsa"}:
        assert algorithm_of(other, flags) == key_type_of(other) == other
