"""Which keys the kernel signs with, and what the front does before it has it do so."""

from __future__ import annotations

import pytest

from kagent.custody import kernel
from kagent.keyctl import AsymmetricKey, KeyRejected
from kagent.protocol.algorithms import KEY_TYPES
from kagent.protocol.publickey import PublicKey


class Standin(AsymmetricKey):
    """One that says so when it is used."""

    def sign(self, digest: bytes, hash_name: str, size: int = 0) -> bytes:
        raise AssertionError("it was used")


def public(exponent: int = 65537, bits: int = 1024) -> PublicKey:
    blob = KEY_TYPES["ssh-rsa"].blob({"e": exponent, "n": 1 << bits - 1 | 1})
    return PublicKey.parse(blob)


@pytest.mark.parametrize("bits", [1024, 1536, 2048, 3072, 4096])
def test_only_sizes_that_its_rsa_has(bits: int) -> None:
    """Linux, crypto/rsa.c: rsa_check_key_length."""
    assert kernel.why_not(public(bits=bits)) == ""
    for other in (bits - 1, bits + 1):
        assert f"{other}-bit" in kernel.why_not(public(bits=other))


def test_none_with_an_exponent_that_takes_the_front_long() -> None:
    """Not even where somebody has put the key, and its record, where the front finds them."""
    usual, longest, long = (public(one) for one in (65537, 2**64 - 1, 2**64 + 1))
    assert kernel.why_not(usual) == kernel.why_not(longest) == ""
    assert "exponent of 65 bits" in kernel.why_not(long)
    with pytest.raises(KeyRejected, match="exponent of 65 bits"):
        kernel.sign(Standin(0), long, "rsa-sha2-256", b"data")
    with pytest.raises(AssertionError, match="it was used"):
        kernel.sign(Standin(0), longest, "rsa-sha2-256", b"data")
