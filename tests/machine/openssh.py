"""The newest OpenSSH: its programs, and with its regression tests a small Debian testing; both in a
cache."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from .debian import debootstrap
from .environment import cache_directory, making
from .kernels import unpack

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

_PROGRAMS = (
    *("usr/bin/ssh", "usr/bin/ssh-add", "usr/bin/ssh-agent", "usr/bin/ssh-keygen"),
    *("usr/sbin/sshd", "usr/lib/openssh/sshd-session", "usr/lib/openssh/sshd-auth"),
    *("usr/lib/openssh/ssh-sk-helper", "usr/lib/openssh/ssh-pkcs11-helper"),
)
_UNPACKED = ("openssh-client", "openssh-common", "openssh-server", "openssh-tests", "libsofthsm2")
# With that release's own loader and libraries, of which this machine may have older ones.
_START = """\
#!/bin/sh
exec {loader} --argv0 "$0" --library-path {libraries} {program} "$@"
"""


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


def programs() -> Path:
    """A folder with ssh, ssh-add, sshd and so on, to be run on this machine; in `tree` beside it
    are their packages' files, unpacked and not installed.

    Made if it isn't there, by everybody who has an apt.  Raises CalledProcessError, LookupError.
    """
    digest = hashlib.sha256(" ".join((*_PROGRAMS, *_UNPACKED, _START)).encode()).hexdigest()
    home = cache_directory() / "packages" / f"openssh-{RELEASE}-{digest[:16]}"
    with making(home) as missing:
        if missing:
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                made = Path(folder, "made")
                unpack(RELEASE, _UNPACKED, Path(folder), made / "tree")
                _wrap(made, home)
                made.rename(home)
    return home / "bin"


def _wrap(made: Path, home: Path) -> None:
    """Make the folder of programs, for when `made` is at `home`."""
    (made / "bin").mkdir()
    [loader] = (made / "tree").glob("usr/lib/*/ld-linux*.so.*")
    there = home / loader.relative_to(made)
    for program in _PROGRAMS:
        if not (made / "tree" / program).exists():
            raise LookupError(f"none of {', '.join(_UNPACKED)} has {program}")
        path = made / "bin" / Path(program).name
        words = {"loader": there, "libraries": there.parent, "program": home / "tree" / program}
        path.write_text(_START.format(**words))
        path.chmod(0o755)
    made.chmod(0o755)
