"""Key files of every kind that ssh-keygen and openssl write."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent.private.keyfile import KeyFileError, WrongPassphrase, parse, public_key
from kagent.protocol.publickey import parse_line

TYPES = {
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ed25519": ("-t", "ed25519"),
    "nistp256": ("-t", "ecdsa", "-b", "256"),
    "nistp384": ("-t", "ecdsa", "-b", "384"),
    "nistp521": ("-t", "ecdsa", "-b", "521"),
}
CIPHERS = (
    "3des-cbc",
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
)


def keygen(path: Path, *options: str, passphrase: str = "") -> bytes:
    """A private key file, made by ssh-keygen."""
    words = ["ssh-keygen", "-q", "-N", passphrase, "-C", "käse & co", "-f", str(path), *options]
    subprocess.run(words, check=True)
    return path.read_bytes()


def public_blob(path: Path) -> bytes:
    return parse_line(path.with_suffix(".pub").read_text())[0].blob


@pytest.mark.parametrize("type", TYPES)
def test_openssh_format(type: str, tmp_path: Path) -> None:
    data = keygen(tmp_path / "key", *TYPES[type])
    key, comment = parse(data)
    assert key.public_blob == public_blob(tmp_path / "key") == public_key(data).blob
    assert comment == "käse & co"


@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_cipher(cipher: str, tmp_path: Path) -> None:
    data = keygen(tmp_path / "key", "-t", "ed25519", "-a", "1", "-Z", cipher, passphrase="geheim")
    key, _ = parse(data, b"geheim")
    assert key.public_blob == public_blob(tmp_path / "key") == public_key(data).blob
    for wrong in (b"", b"geheim ", b"\xff"):
        with pytest.raises(WrongPassphrase):
            parse(data, wrong)


@pytest.mark.parametrize("passphrase", ["", "geheim"])
@pytest.mark.parametrize("format", ["PEM", "PKCS8"])
@pytest.mark.parametrize("type", ["rsa", "nistp256", "nistp384", "nistp521"])
def test_pem(type: str, format: str, passphrase: str, tmp_path: Path) -> None:
    data = keygen(tmp_path / "key", *TYPES[type], "-m", format, passphrase=passphrase)
    key, comment = parse(data, passphrase.encode())
    assert key.public_blob == public_blob(tmp_path / "key")
    assert comment == ""
    if passphrase:
        for wrong in (b"", b"geheim "):
            with pytest.raises(WrongPassphrase):
                parse(data, wrong)


def test_private_numbers_are_openssls(tmp_path: Path) -> None:
    keygen(tmp_path / "key", *TYPES["rsa"], "-m", "PKCS8")
    pem, _ = parse((tmp_path / "key").read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "", "-f", tmp_path / "key"], check=True)
    openssh, _ = parse((tmp_path / "key").read_bytes())
    assert pem == openssh


def test_types_that_ssh_does_not_take(tmp_path: Path) -> None:
    dsa = ["openssl", "genpkey", "-algorithm", "ED448", "-out", tmp_path / "key"]
    subprocess.run(dsa, check=True)
    with pytest.raises(KeyFileError, match="invalid format"):
        parse((tmp_path / "key").read_bytes())


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"-----BEGIN RSA PRIVATE KEY-----\n", b"\0" * 99]
)
def test_no_key_at_all(data: bytes) -> None:
    with pytest.raises(KeyFileError, match="invalid format"):
        parse(data)


def test_an_rsa_key_that_is_too_short(tmp_path: Path) -> None:
    short = ["openssl", "genrsa", "-out", tmp_path / "key", "512"]
    subprocess.run(short, check=True, capture_output=True)
    with pytest.raises(KeyFileError, match="Invalid key length"):
        parse((tmp_path / "key").read_bytes())


@pytest.fixture(scope="module")
def armoured(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return keygen(tmp_path_factory.mktemp("key") / "key", "-t", "ed25519")


@given(data=st.data())
def test_damage_is_told(armoured: bytes, data: st.DataObject) -> None:
    """No byte can change without notice: all are either checked or part of what is compared."""
    place = data.draw(st.integers(0, len(armoured) - 1))
    damaged = armoured[:place] + bytes((data.draw(st.integers(0, 255)),)) + armoured[place + 1 :]
    try:
        parsed = parse(damaged)
    except KeyFileError:
        return
    key, _ = parse(armoured)
    # What is left: line breaks, the comment, the unused seed half and what stands after the end.
    assert parsed[0].public_blob == key.public_blob


@given(st.integers(0, 500))
def test_truncation_is_told(armoured: bytes, length: int) -> None:
    with pytest.raises(KeyFileError):
        parse(armoured[: min(length, armoured.index(b"-----END"))])
