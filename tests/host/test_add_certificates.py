"""Certificates with kagent-add and ssh-add."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.support.programs import RSA, Person, Same


def certify(person: Person, name: str, *options: str) -> None:
    """Put a certificate beside a key, under the authority `ca`."""
    if not (person.home / "ca").exists():
        person.key("ca", "-t", "ed25519")
    signing = ("ssh-keygen", "-q", "-s", "ca", "-I", "wer weiß", "-n", "root")
    person.run(*signing, *options, f"{name}.pub")


def test_certificates(same: Same, person: Person) -> None:
    person.key("key", *RSA)
    certify(person, "key")
    person.key("other", "-t", "ed25519")
    added = same("key").stderr.splitlines()
    assert added[1] == "Certificate added: key-cert.pub (wer weiß)"
    assert "(RSA-CERT)" in same("-l").stdout
    assert "ssh-rsa-cert-v01@openssh.com" in same("-L").stdout
    assert same("-T", "key", "key-cert.pub").returncode == 0
    assert "Certificate" not in same("-k", "key").stderr
    assert same("-dk", "key").stderr == "Identity removed: key RSA (key käse)\n"
    assert "RSA-CERT" in same("-d", "key-cert.pub").stderr
    assert same("-c", "key").stderr.count("must confirm") == 2
    assert same("-d", "key").returncode == 0
    assert same("-d", "key").returncode == 1
    (person.home / "key-cert.pub").rename(person.home / "other-cert.pub")
    assert "does not match" in same("other").stderr
    assert same("-d", "other").returncode == 255
    person.file("other-cert.pub", "garbage\n")
    assert same("other").returncode == 0


def test_certificates_only(ours: Same, person: Person) -> None:
    """OpenSSH 9.6 and later.  Its ssh-add -C ends with 1 although all went well; this doesn't."""
    person.key("key", "-t", "ed25519")
    assert ours("-C", "key").returncode == 1
    certify(person, "key")
    assert ours("-C", "-k", "key").returncode == 1
    told = ours("-C", "key")
    assert told.returncode == 0
    assert told.stderr == "Certificate added: key-cert.pub (wer weiß)\n"
    assert ours("key").returncode == 0
    assert ours("-l").stdout.count("\n") == 2
    assert ours("-d", "-C", "key").stderr.count("removed") == 1
    assert "(ED25519)" in ours("-l").stdout
    certificate = (person.home / "key-cert.pub").read_text()
    both = certificate + (person.home / "key.pub").read_text()
    assert ours("-d", "-C", "-", input=both).returncode == 1
    ours("key")
    assert ours("-d", "-C", "-", input=both).stderr.count("removed") == 1
    assert ours("-d", "-k", "-", input=certificate).returncode == 1


def test_a_certificate_that_ends(ours: Same, person: Person) -> None:
    """OpenSSH 10.0 and later: it is held until five minutes after its end."""
    person.key("key", "-t", "ed25519")
    certify(person, "key", "-V", "-1d:+1h")
    for words, told in (
        ((), ["01:04:5", "01:05:0"]),
        (("-t", "60"), ["00:01:00"]),
        (("-t", "1d"), ["01:04:5", "01:05:0"]),
        (("-N", "-t", "1d"), ["1d00h00m"]),
    ):
        line = ours(*words, "key").stderr.splitlines()[-1]
        assert line.startswith(tuple(f"Lifetime set to {start}" for start in told)), words
    assert "Lifetime" not in ours("-N", "key").stderr
    certify(person, "key", "-V", "-1d:-4m30s")
    assert ours("key").stderr.splitlines()[-1].startswith("Lifetime set to 00:00:")
    certify(person, "key", "-V", "-1d:-6m")
    told = ours("-q", "-C", "key")
    assert told.returncode == 1
    assert told.stderr == "Certificate key-cert.pub has already expired; ignored\n"
    assert ours("-N", "-C", "key").returncode == 0


def damage(path: Path) -> None:
    """Change the last byte of a certificate's signature."""
    type, blob, *comment = path.read_text().split(" ", 2)
    data = bytearray(base64.b64decode(blob))
    data[-1] ^= 1
    path.write_text(" ".join([type, base64.b64encode(data).decode(), *comment]))


def test_a_signature_that_nobody_has_made(same: Same, person: Person) -> None:
    """No certificate at all, wherever it is read."""
    path = person.key("key", *RSA)
    certify(person, "key")
    certificate = path.with_name("key-cert.pub")
    good = certificate.read_text()
    assert "Certificate added" in same("key").stderr
    damage(certificate)
    bad = certificate.read_text()
    assert same("key").stderr == "Identity added: key (key käse)\n"
    same("-d", "key")
    same("-d", "key-cert.pub")
    same("-T", "key-cert.pub")
    for text in (bad, good, bad + good):
        same("-d", "-", input=text)
    assert "no identities" in same("-l").stdout
