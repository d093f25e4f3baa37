"""Public keys against what ssh-keygen says of the same file."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent.protocol.publickey import HOST, USER, PublicKey, UnknownKeyType, parse_line
from kagent.protocol.wire import MPINT, STRING, TEXT, ProtocolError
from tests.destinations.keys import AUTHORITY, UNKNOWN, A, B, D
from tests.machine.openssh import programs

KEYS = [
    ("rsa", "1024"),
    ("rsa", "2048"),
    ("ecdsa", "256"),
    ("ecdsa", "384"),
    ("ecdsa", "521"),
    ("ed25519", "256"),
]


def keygen(*arguments: str) -> str:
    done = subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for kind, bits in KEYS:
        path = str(folder / f"{kind}{bits}")
        keygen("-q", "-t", kind, "-b", bits, "-N", "", "-C", f"a {kind} key", "-f", path)
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(folder / "ca"))
    for kind, bits in KEYS:
        path = str(folder / f"{kind}{bits}.pub")
        keygen("-q", "-s", str(folder / "ca"), "-I", "me", "-n", "root", "-z", "7", path)
    return folder


@pytest.mark.parametrize("suffix", [".pub", "-cert.pub"])
@pytest.mark.parametrize(("kind", "bits"), KEYS)
def test_a_key_is_what_ssh_keygen_says(folder: Path, kind: str, bits: str, suffix: str) -> None:
    path = folder / f"{kind}{bits}{suffix}"
    key, comment = parse_line(path.read_text())
    for hash_name in ("sha256", "sha512", "md5"):
        told = keygen("-l", "-E", hash_name, "-f", str(path)).strip()
        assert f"{key.bits} {key.fingerprint(hash_name)} {comment} ({key.kind})" == told
    assert f"{key.line()} {comment}" == path.read_text().strip()
    if suffix == "-cert.pub":
        assert key.certificate is not None
        assert (key.certificate.key_id, key.certificate.serial) == ("me", 7)
        assert key.plain_blob == parse_line((folder / f"{kind}{bits}.pub").read_text())[0].blob


@pytest.mark.parametrize(
    ("kind", "numbers", "on_token"),
    [
        ("sk-ssh-ed25519@openssh.com", A.blob[-36:], True),
        ("sk-ecdsa-sha2-nistp256@openssh.com", B.blob[-81:], True),
        ("ssh-mldsa44-ed25519", STRING.write(bytes(1312) + A.blob[-32:]), False),
    ],
    ids=["ed25519", "ecdsa", "mldsa44"],
)
def test_a_newer_key_is_what_the_newest_ssh_keygen_says(
    tmp_path: Path, kind: str, numbers: bytes, on_token: bool
) -> None:
    key = PublicKey.parse(TEXT.write(kind) + numbers + (TEXT.write("ssh:") if on_token else b""))
    path = tmp_path / "key.pub"
    path.write_text(f"{key.line()} comment\n")
    told = subprocess.run(
        [programs() / "ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert f"{key.bits} {key.fingerprint()} comment ({key.kind})" == told
    assert key.about.on_token == on_token


def test_a_fingerprint_is_whole(tmp_path: Path) -> None:
    """Also where the hash has no padding, and ends with a letter as this one does."""
    key = PublicKey.parse(TEXT.write("ssh-ed25519") + STRING.write(bytes([69] * 32)))
    path = tmp_path / "key.pub"
    path.write_text(key.line())
    fingerprint = key.fingerprint("sha384")
    assert fingerprint.endswith("U1x")
    assert fingerprint in keygen("-l", "-E", "sha384", "-f", str(path))


KIND, DATA = A.public.line().split()
ANOTHER_CURVE = B.blob.replace(TEXT.write("nistp256"), TEXT.write("nistp384"))


@pytest.mark.parametrize(
    "line",
    [
        "",
        KIND,
        f"ssh-rsa {DATA}",
        f"{KIND} {DATA[:20]}!{DATA[20:]}",
        f"{KIND} {DATA[:-4]}",
        f"{KIND} {DATA}AAAA",
        f"{B.type} {b64encode(ANOTHER_CURVE).decode()}",
    ],
    ids=[
        *("nothing", "no key", "another type", "no base64", "cut off", "too long", "another curve")
    ],
)
def test_what_is_no_line_of_a_key_is_none_for_ssh_keygen_either(tmp_path: Path, line: str) -> None:
    path = tmp_path / "key.pub"
    for text, good in ((f"{KIND} {DATA}\n", True), (f"{line}\n", False)):
        path.write_text(text)
        told = subprocess.run(["ssh-keygen", "-l", "-f", path], check=False, capture_output=True)
        assert (told.returncode == 0) == good
    assert parse_line(f"{KIND} {DATA}") == (A.public, "")
    with pytest.raises(ProtocolError):
        parse_line(line)


def test_keys_are_the_same_to_the_byte() -> None:
    """In a set too; and a key is not its blob."""
    assert {A.public, PublicKey.parse(A.blob), B.public} == {A.public, B.public}
    assert A.public != B.public
    assert A.public != A.blob


def test_a_certificate_is_the_same_as_no_other_of_its_key() -> None:
    first, second = (D.certified(AUTHORITY, name).public for name in "de")
    assert first.is_same(PublicKey.parse(first.blob))
    for one, other in ((first, second), (first, D.public), (D.public, first)):
        assert not one.is_same(other)


def test_a_key_is_the_same_with_zeros_in_front() -> None:
    number, longer = (STRING.write(zeros + bytes([127] * 128)) for zeros in (b"", b"\0"))
    first, second = (
        PublicKey.parse(TEXT.write("ssh-rsa") + MPINT.write(65537) + one)
        for one in (number, longer)
    )
    assert first.is_same(second)
    assert first != second


@pytest.mark.parametrize(
    ("now", "valid"), [(999.9, False), (1000, True), (1999.9, True), (2000, False)]
)
def test_a_certificate_of_a_host_has_its_time(now: float, valid: bool) -> None:
    option = TEXT.write("option") + STRING.write(b"")
    for role, critical in ((HOST, b""), (USER, b""), (HOST, option)):
        host = D.certified(
            AUTHORITY, "d", role=role, after=1000, before=2000, critical=critical
        ).public
        assert host.certificate is not None
        fits = (role, critical) == (HOST, b"")
        assert host.certificate.is_of_host(now) == (valid and fits)


@given(st.binary(max_size=200))
def test_a_rubbish_blob_is_a_protocol_error(blob: bytes) -> None:
    for data in (blob, TEXT.write("ssh-rsa") + blob, TEXT.write("ssh-ed25519") + blob):
        try:
            PublicKey.parse(data)
        except ProtocolError:
            pass


def test_an_unknown_type_is_told_from_damage() -> None:
    with pytest.raises(UnknownKeyType):
        PublicKey.parse(UNKNOWN.blob)
    assert UNKNOWN.public.kind == "ssh-future"
    assert UNKNOWN.public.plain_blob == UNKNOWN.blob
