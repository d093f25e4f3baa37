"""The newest OpenSSH with its regression tests: a small Debian testing, in a cache."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from .debian import debootstrap
from .environment import cache_directory, making

RELEASE = "testing"
_PACKAGES = (
    "gdb-minimal",
    "keyutils",
    "libseccomp2",
    "make",
    "openssh-client",
    "openssh-server",
    "openssh-tests",
    "openssl",
    # What kagent needs, as that release has it.
    "python3-bcrypt",
    "python3-cffi-backend",
    "python3-cryptography",
    "python3-trio",
    "softhsm2",
    "sudo",
)


def tree() -> Path:
    """The folder that it is in, made if it isn't there; only root can.

    Raises CalledProcessError, LookupError.
    """
    digest = hashlib.sha256(" ".join(_PACKAGES).encode()).hexdigest()
    home = cache_directory() / "systems" / f"{RELEASE}-{digest[:16]}"
    with making(home) as missing:
        if missing:
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                debootstrap(RELEASE, Path(folder, "tree"), _PACKAGES)
                Path(folder, "tree").rename(home)
    return home
