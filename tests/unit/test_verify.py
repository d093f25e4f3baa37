"""Certificates: those of ssh-keygen are good, and no byte of one can be another."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import cryptography
import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from kagent.private import composite
from kagent.private.keyfile import parse
from kagent.private.library import KeyRefused, library_key
from kagent.private.sealed import throwaways
from kagent.private.verify import BadSignature, CannotVerify, check_certificate, verify
from kagent.protocol.privatekey import NamedPrivateKey
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import STRING, TEXT, ProtocolError
from tests.machine.environment import sk_dummy
from tests.machine.openssh import programs
from tests.support.certificates import GOOD, ODD, UNUSABLE, WRONG

KEYS = (
    *("rsa-1024", "ecdsa-256", "ecdsa-384", "ecdsa-521", "ed25519", "ecdsa-sk", "ed25519-sk"),
    POST_QUANTUM := "mldsa44-ed25519",
)
ENVIRONMENT = {**os.environ, "SSH_SK_PROVIDER": str(sk_dummy())}


def keygen(*words: str | Path) -> None:
    # The newest has no helper for tokens beside it; those who look for one find this machine's.
    newest = any(POST_QUANTUM in str(word) for word in words)
    program = programs() / "ssh-keygen" if newest else "ssh-keygen"
    subprocess.run([program, "-q", *words], check=True, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in KEYS:
        kind, _, bits = name.partition("-")
        size = ("-b", bits) if bits.isdecimal() else ()
        kind = kind if bits.isdecimal() else name
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


@pytest.fixture(params=["47", "of an old OpenSSL"])
def without_mldsa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library as it is before version 48: without the module, or with one that can't."""

    class Missing:
        def __getattr__(self, name: str) -> None:
            raise UnsupportedAlgorithm(name)

    monkeypatch.setattr(composite, "mldsa", None if request.param == "47" else Missing())


@pytest.mark.usefixtures("without_mldsa")
def test_without_ml_dsa_in_the_library(folder: Path) -> None:
    """The refusal says which version has it; all else works, and nothing is believed."""
    named = parse((folder / POST_QUANTUM).read_bytes())[0]
    version = f"version 48 or later.* this is {cryptography.__version__} with OpenSSL"
    with pytest.raises(KeyRefused, match=version):
        library_key(named)
    with pytest.raises(CannotVerify, match=version):
        verify(PublicKey.parse(named.public_blob), signature_of_nobody(named), b"data")
    # Held as it came, as one by an authority of an unknown type.
    assert not check_certificate(certificate(folder, POST_QUANTUM, "ed25519"))
    with pytest.raises(CannotVerify, match=version):
        check_certificate(certificate(folder, "ed25519", POST_QUANTUM))
    assert {algorithm for _, algorithm in throwaways()} == {
        *("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256")
    }


def signature_of_nobody(named: NamedPrivateKey) -> bytes:
    return TEXT.write(named.type) + STRING.write(bytes(2484))


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
