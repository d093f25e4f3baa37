"""What a key looks like in memory: every form of every number, whole or in parts, anywhere."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent.private import composite
from kagent.private.keyfile import parse
from kagent.private.keyfile.pem import from_library
from kagent.private.library import der, library_key
from kagent.protocol.privatekey import (
    CompositePrivateKey,
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    NamedPrivateKey,
    RsaPrivateKey,
)
from kagent.prove.needles import Needles, Trace

PART = 15  # bytes that are always found


def key(folder: Path, *options: str) -> NamedPrivateKey:
    """A key of OpenSSH's making."""
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", *options, "-f", path], check=True)
    return parse(path.read_bytes())[0]


def found(needles: Needles, memory: bytes) -> set[tuple[str, str]]:
    words = array("Q", memory[: len(memory) // 8 * 8])
    return {(trace.number, trace.form) for trace in needles.among(words)}


def numbers_found(needles: Needles, memory: bytes) -> set[str]:
    return {number for number, _ in found(needles, memory)}


@pytest.fixture(scope="module")
def rsa(tmp_path_factory: pytest.TempPathFactory) -> NamedPrivateKey:
    return key(tmp_path_factory.mktemp("rsa"), "-t", "rsa", "-b", "2048")


def test_der_has_all_numbers_of_rsa(rsa: NamedPrivateKey) -> None:
    needles = Needles({"x": rsa.key})
    for data in (der(library_key(rsa)), b"1" + der(library_key(rsa))):
        assert found(needles, data) == {
            (number, "big-endian") for number in ("p", "q", "d", "dp", "dq", "qinv")
        }
        text = base64.encodebytes(data)
        assert found(needles, text) == {
            (number, "base64") for number in ("p", "q", "d", "dp", "dq", "qinv")
        }
    assert found(needles, rsa.public_blob) == set()
    assert found(needles, base64.encodebytes(rsa.public_blob)) == set()
    assert needles.numbers == {("x", number) for number in ("p", "q", "d", "dp", "dq", "qinv")}


def test_what_multiplication_is_prepared_with(rsa: NamedPrivateKey) -> None:
    """p's R² mod p tells p to who knows the modulus, which is why it is sought."""
    assert isinstance(rsa.key, RsaPrivateKey)
    squared = 2**2048 % rsa.key.p  # R is 2^1024
    needles = Needles({"x": rsa.key})
    assert found(needles, squared.to_bytes(128, "little")) == {("R² mod p", "limbs")}


@pytest.mark.parametrize("curve", ["256", "384", "521"])
def test_ecdsa(tmp_path: Path, curve: str) -> None:
    named = key(tmp_path, "-t", "ecdsa", "-b", curve)
    assert isinstance(named.key, EcdsaPrivateKey)
    needles = Needles({"x": named.key})
    assert found(needles, der(library_key(named))) == {("scalar", "big-endian")}
    assert found(needles, named.key.d.to_bytes(66, "little")) == {("scalar", "limbs")}
    assert found(needles, named.public_blob) == set()


def test_ed25519(tmp_path: Path) -> None:
    named = key(tmp_path, "-t", "ed25519")
    assert isinstance(named.key, Ed25519PrivateKey)
    needles = Needles({"x": named.key})
    assert found(needles, der(library_key(named))) == {("seed", "big-endian")}
    assert found(needles, named.public_blob) == set()
    expanded = hashlib.sha512(named.key.seed_and_point[:32]).digest()
    # All but the ends of it, where bits are set and cleared, is the scalar.
    assert numbers_found(needles, expanded[1:31]) == {"scalar of the seed"}
    assert numbers_found(needles, expanded[32:]) == {"prefix of the nonces"}
    assert needles.numbers == {("x", "seed")}


def test_ml_dsa_and_ed25519() -> None:
    keys = composite.PrivateKey.from_seeds(os.urandom(64))
    named = from_library(keys)
    needles = Needles({"x": named.key})
    assert found(needles, der(keys)) == {("seed", "big-endian"), ("seed of ML-DSA", "big-endian")}
    assert found(needles, named.public_blob) == set()
    assert needles.numbers == {("x", "seed"), ("x", "seed of ML-DSA")}
    # What OpenSSL has of them, FIPS 204: the public seed first, then the vectors', then K.
    assert isinstance(named.key, CompositePrivateKey)
    expanded = hashlib.shake_256(named.key.seeds[:32] + b"\4\4").digest(128)
    assert named.key.keys.startswith(expanded[:32])
    assert numbers_found(needles, expanded[32:96]) == {"seed of ML-DSA's vectors"}
    assert numbers_found(needles, expanded[96:]) == {"seed of ML-DSA's nonces"}


def written(form: str, secret: bytes, before: int = 0) -> bytes:
    """As it is in memory; of base64, behind so many other bytes, what is of nothing else."""
    number = int.from_bytes(secret, "big")
    match form:
        case "limbs":
            return secret[::-1]
        case "digits":
            digits = [number >> 30 * i & (1 << 30) - 1 for i in range(len(secret) * 8 // 30)]
            return b"".join(digit.to_bytes(4, "little") for digit in digits)
        case "base64":
            letters = base64.b64encode(bytes(before) + secret)
            return letters[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6]
    return secret


@given(
    st.randoms(use_true_random=True),
    st.sampled_from(["big-endian", "limbs", "digits", "base64"]),
    st.integers(0, 64),
    st.integers(0, 2),
)
def test_every_part_is_found_at_every_address(chance, form: str, address: int, before: int) -> None:  # type: ignore[no-untyped-def]
    secret = bytes([*chance.choices(range(1, 256), k=1), *chance.randbytes(31)])
    needles = Needles({"x": EcdsaPrivateKey("nistp256", b"", int.from_bytes(secret, "big"))})
    whole = written(form, secret, before)
    start = chance.randrange(len(whole) - PART + 1)
    part = whole[start : start + PART]
    memory = chance.randbytes(address) + part + chance.randbytes(64)
    assert ("scalar", form) in found(needles, memory)
    assert found(needles, chance.randbytes(100)) == set()


def test_what_is_everywhere_is_no_evidence() -> None:
    """Of a key whose number is mostly zeros, that."""
    needles = Needles({"x": EcdsaPrivateKey("nistp256", b"", 1 << 250 | 12345)})
    assert found(needles, bytes(100)) == set()


@pytest.mark.parametrize("bits", range(514, 522))
def test_a_small_number_is_no_evidence(bits: int) -> None:
    """Though it looks like the end of a long one, with what fills it up to a whole word."""
    number = int.from_bytes(os.urandom(65), "big") % 2 ** (bits - 1) | 1 << bits - 1
    needles = Needles({"x": EcdsaPrivateKey("nistp521", b"", number)})
    for form in ("limbs", "digits"):
        end = written(form, number.to_bytes(68, "big")).rstrip(b"\0")[-4:]
        for address in range(8):
            assert found(needles, bytes(address) + end + bytes(16)) == set()


def test_keys_are_told_apart(rsa: NamedPrivateKey) -> None:
    other = EcdsaPrivateKey("nistp256", b"", int.from_bytes(b"1" + os.urandom(31), "big"))
    needles = Needles({"one": rsa.key, "other": other})
    words = array("Q", other.d.to_bytes(32, "big"))
    assert needles.among(words) == {Trace("other", "scalar", "big-endian")}
