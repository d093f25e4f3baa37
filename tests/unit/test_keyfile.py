"""Key files of every kind that ssh-keygen and openssl write."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from kagent.private.keyfile import (
    KeyFileError,
    ManyPrimes,
    WrongPassphrase,
    parse,
    public_key,
)
from kagent.private.keyfile.errors import UnsupportedCipher
from kagent.protocol.privatekey import EcdsaPrivateKey
from kagent.protocol.publickey import parse_line
from kagent.protocol.wire import UINT32

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


# What ssh-add opens, and the library may not.
OPENED = {
    **{
        f"traditional {name}": ("rsa", "-traditional", f"-{name}")
        for name in (
            "aes192",
            "camellia128",
            "camellia192",
            "camellia256",
            "aria256",
            "des-ede-cbc",
        )
    },
    **{f"PBES2 {name}": ("pkcs8", "-topk8", "-v2", name) for name in ("camellia256", "aria128")},
    "PBES1 with two-key DES": ("pkcs8", "-topk8", "-v1", "PBE-SHA1-2DES"),
}
LEGACY = ("-provider", "legacy", "-provider", "default")
UNSUPPORTED = ("pkcs8", "-topk8", "-v2", "seed", *LEGACY)


def openssl(folder: Path, *words: str) -> bytes:
    """An RSA key, encrypted by OpenSSL's command."""
    path = folder / "key"
    if not path.exists():
        keygen(path, *TYPES["rsa"], "-m", "PKCS8")
    command = ["openssl", *words, "-in", path, "-passout", "pass:geheim"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("how", OPENED)
def test_what_the_command_opens(how: str, tmp_path: Path) -> None:
    data = openssl(tmp_path, *OPENED[how])
    key, _ = parse(data, b"geheim", by_command=True)
    assert key.public_blob == public_blob(tmp_path / "key")
    for wrong in (b"", b"geheim ", b"x" * 2000):
        with pytest.raises(WrongPassphrase):
            parse(data, wrong, by_command=True)


def test_a_cipher_that_nothing_here_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No passphrase is right, so none is asked for again."""
    data = openssl(tmp_path, *UNSUPPORTED)
    with pytest.raises(UnsupportedCipher, match="openssl pkey -provider legacy"):
        parse(data, b"geheim", by_command=True)
    others = [openssl(tmp_path, *OPENED[how]) for how in OPENED]
    with pytest.raises(UnsupportedCipher, match="openssl pkey -in"):
        parse(others[0], b"geheim")
    known = openssl(tmp_path, "rsa", "-traditional", "-aes128")
    monkeypatch.setenv("PATH", str(tmp_path))
    for data in others:
        with pytest.raises(UnsupportedCipher, match="is needed"):
            parse(data, b"geheim", by_command=True)
    with pytest.raises(WrongPassphrase):
        parse(known, b"wrong", by_command=True)


def short_scalars() -> Iterator[tuple[str, bytes, bytes]]:
    """Keys whose scalar lacks the zero in front, as many a library writes them, and their points.

    SEC1 and PKCS#8 (RFC 5915, RFC 5208) by hand: no program here leaves it out any more.
    """
    for curve, identifier, size in (
        (ec.SECP256R1(), "2a8648ce3d030107", 32),
        (ec.SECP384R1(), "2b81040022", 48),
        (ec.SECP521R1(), "2b81040023", 66),
    ):
        scalar = bytes(range(1, size))  # a byte less
        key = ec.derive_private_key(int.from_bytes(scalar, "big"), curve)
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        oid = der(0x06, bytes.fromhex(identifier))
        parts = der(0x02, b"\1") + der(0x04, scalar)
        public = der(0xA1, der(0x03, b"\0" + point))
        sec1 = der(0x30, parts + der(0xA0, oid) + public)
        algorithm = der(0x30, der(0x06, bytes.fromhex("2a8648ce3d0201")) + oid)
        inner = der(0x04, der(0x30, parts + public))
        yield f"{curve.name} SEC1", pem("EC PRIVATE KEY", sec1), point
        pkcs8 = der(0x30, der(0x02, b"\0") + algorithm + inner)
        yield f"{curve.name} PKCS8", pem("PRIVATE KEY", pkcs8), point


def der(tag: int, content: bytes) -> bytes:
    """X.690, with a length in the shortest form."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    long = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(long))) + long + content


def pem(label: str, content: bytes) -> bytes:
    lines = base64.encodebytes(content).decode()
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n".encode()


@pytest.mark.parametrize(
    ("data", "point"), [pytest.param(*rest, id=name) for name, *rest in short_scalars()]
)
def test_a_scalar_without_its_zero_in_front(data: bytes, point: bytes) -> None:
    key, _ = parse(data, by_command=True)
    assert isinstance(key.key, EcdsaPrivateKey)
    assert key.key.point == point


def test_private_numbers_are_openssls(tmp_path: Path) -> None:
    keygen(tmp_path / "key", *TYPES["rsa"], "-m", "PKCS8")
    pem, _ = parse((tmp_path / "key").read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "", "-f", tmp_path / "key"], check=True)
    openssh, _ = parse((tmp_path / "key").read_bytes())
    assert pem == openssh


@pytest.mark.parametrize("form", [[], ["-traditional"], ["-aes256"], ["-traditional", "-aes256"]])
def test_rsa_keys_of_more_than_two_primes(tmp_path: Path, form: list[str]) -> None:
    """They are not called damaged."""
    path = tmp_path / "key"
    subprocess.run(["openssl", "genrsa", "-primes", "3", "-out", path, "2048"], check=True)
    data = openssl(tmp_path, "rsa", *form)
    with pytest.raises(ManyPrimes, match="more than two primes"):
        parse(data, b"geheim", by_command=True)
    with pytest.raises(WrongPassphrase if "-aes256" in form else KeyFileError):
        parse(data, b"wrong", by_command=True)


def test_types_that_ssh_does_not_take(tmp_path: Path) -> None:
    dsa = ["openssl", "genpkey", "-algorithm", "ED448", "-out", tmp_path / "key"]
    subprocess.run(dsa, check=True)
    with pytest.raises(KeyFileError, match="invalid format"):
        parse((tmp_path / "key").read_bytes())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"-----BEGIN RSA PRIVATE KEY-----\n",
        b"\0" * 99,
        b"DEK-Info: " + b"A" * (1 << 19),  # which looked for it over and over, for half an hour
    ],
    ids=["empty", "garbage", "beginning", "zeros", "cipher"],
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


def test_a_passphrase_that_would_take_for_ever(tmp_path: Path) -> None:
    """As many rounds as OpenSSH 10.6 does, and one more."""
    data = keygen(tmp_path / "key", "-t", "ed25519", "-a", "1", passphrase="geheim")
    body = base64.b64decode("".join(data.decode().splitlines()[1:-1]))
    salted = body.index(UINT32.write(16)) + 20
    assert body[salted : salted + 4] == UINT32.write(1)
    more = body[:salted] + UINT32.write((1 << 20) + 1) + body[salted + 4 :]
    lines = data.decode().splitlines()
    text = "\n".join([lines[0], base64.b64encode(more).decode(), lines[-1]])
    with pytest.raises(KeyFileError, match="1048577 rounds, and ssh does at most 1048576"):
        parse(text.encode(), b"geheim")
