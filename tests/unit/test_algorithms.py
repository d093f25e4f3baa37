"""The table of algorithms against what the newest ssh says of itself."""

from __future__ import annotations

import hashlib
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


def test_each_hash_is_one_of_hashlib_or_none() -> None:
    """None where the data itself is signed: RFC 8709, PROTOCOL.u2f."""
    without = {name for name, one in ALGORITHMS.items() if not one.hash}
    assert without == {"ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ssh-mldsa44-ed25519"}
    for name in ALGORITHMS.keys() - without:
        assert hashlib.new(ALGORITHMS[name].hash).digest_size


@pytest.mark.parametrize(
    ("flags", "algorithm"),
    [(0, "ssh-rsa"), (2, "rsa-sha2-256"), (4, "rsa-sha2-512"), (6, "rsa-sha2-256")],
)
def test_flags_choose_among_those_of_rsa(flags: int, algorithm: str) -> None:
    for meaningless in (0, 1, 8, 9):
        assert algorithm_of("ssh-rsa", flags | meaningless) == algorithm
    assert key_type_of(algorithm) == "ssh-rsa"
    assert key_type_of(f"{algorithm}-cert-v01@openssh.com") == "ssh-rsa-cert-v01@openssh.com"
    for other in KEY_TYPES.keys() - {"ssh-rsa"}:
        assert algorithm_of(other, flags) == key_type_of(other) == other
