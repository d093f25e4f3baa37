"""Certificates: those of ssh-keygen are good, and no byte of one can be another."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kagent.private.verify import BadSignature, check_certificate
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import TEXT, ProtocolError
from tests.machine.environment import sk_dummy
from tests.support.certificates import GOOD, ODD, UNUSABLE, WRONG

KEYS = ("rsa-1024", "ecdsa-256", "ecdsa-384", "ecdsa-521", "ed25519", "ecdsa-sk", "ed25519-sk")
ENVIRONMENT = {**os.environ, "SSH_SK_PROVIDER": str(sk_dummy())}


def keygen(*words: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in KEYS:
        kind, _, bits = name.partition("-")
        size = ("-b", bits) if bits.isdecimal() else ()
        kind = name if bits == "sk" else kind
        keygen("-t", kind, *size, "-N", "", "-C", name, "-f", folder / name)
    return folder


def certificate(folder: Path, authority: str, name: str, *options: str) -> PublicKey:
    keygen("-s", folder / authority, "-I", "me", "-n", "root", *options, folder / f"{name}.pub")
    return parse_line((folder / f"{name}-cert.pub").read_text())[0]


def believed(blob: bytes) -> bool:
    try:
        return check_certificate(PublicKey.parse(blob))
    except (ProtocolError, BadSignature):
        return False


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("role", ["user", "host"])
def test_one_of_each_key(folder: Path, name: str, role: str) -> None:
    options = ("-h",) if role == "host" else ("-O", "force-command=date", "-V", "+1h")
    check_certificate(certificate(folder, "ed25519", name, *options))


@pytest.mark.parametrize("authority", [*KEYS, "rsa-sha2-256", "ssh-rsa"])
def test_one_of_each_authority(folder: Path, authority: str) -> None:
    """And with any byte changed, none is."""
    algorithm = () if authority in KEYS else ("-t", authority)
    authority = authority if authority in KEYS else "rsa-1024"
    good = certificate(folder, authority, "ecdsa-256", *algorithm)
    check_certificate(good)
    for place in range(len(good.blob)):
        blob = bytearray(good.blob)
        blob[place] ^= 1
        assert not believed(bytes(blob))


@pytest.mark.parametrize("what", ODD)
def test_what_is_unusual(what: str) -> None:
    check_certificate(PublicKey.parse(ODD[what].blob))


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_although_it_is_signed(what: str) -> None:
    check_certificate(PublicKey.parse(GOOD.blob))
    with pytest.raises((ProtocolError, BadSignature)):
        check_certificate(PublicKey.parse(WRONG[what].blob))


def test_an_authority_of_an_unknown_type_is_neither_believed_nor_wrong() -> None:
    """So that a user's certificate by it is held as it came: it is for servers to believe."""
    blob = replace(GOOD, authority=TEXT.write("ssh-future")).blob
    assert not check_certificate(PublicKey.parse(blob))


@pytest.mark.parametrize("what", UNUSABLE)
def test_of_a_key_that_is_of_no_use(what: str) -> None:
    usable, unusable = UNUSABLE[what]
    check_certificate(PublicKey.parse(usable.blob))
    with pytest.raises((ProtocolError, BadSignature)):
        check_certificate(PublicKey.parse(unusable.blob))


def test_a_plain_key_has_nothing_to_check(folder: Path) -> None:
    check_certificate(parse_line((folder / "ed25519.pub").read_text())[0])
