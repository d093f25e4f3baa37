"""RSA keys for the kernel lane: made once by OpenSSH, where making them is quick."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

SIZES = (1024, 1536, 2048, 3072, 4096)
_COUNT = 2  # of each size
_KEYS = os.environ.get("KAGENT_TEST_KEYS")
_folder = Path(_KEYS) if _KEYS else Path(tempfile.mkdtemp(prefix="kagent-keys-"))


def make_all(folder: str) -> None:
    """Make every key that `rsa` gives."""
    Path(folder).mkdir()
    for bits in SIZES:
        for number in range(_COUNT):
            _make(Path(folder), bits, number)


def rsa(bits: int, number: int = 0) -> Path:
    """An OpenSSH private key file, its public half beside it.  Read-only: copy it to use it."""
    path = _path(_folder, bits, number)
    return path if path.exists() else _make(_folder, bits, number)


def pkcs8(path: Path) -> bytes:
    """One of the tests' keys as `openssl pkcs8 -topk8 -outform DER -nocrypt` gives it."""
    key = load_ssh_private_key(path.read_bytes(), None)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _path(folder: Path, bits: int, number: int) -> Path:
    return folder / f"rsa-{bits}-{number}"


def _make(folder: Path, bits: int, number: int) -> Path:
    path = _path(folder, bits, number)
    name = f"key-{bits}-{number}"
    command = ["ssh-keygen", "-q", "-t", "rsa", "-b", str(bits), "-N", "", "-C", name, "-f", path]
    subprocess.run(command, check=True)
    return path
