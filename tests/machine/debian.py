"""A Debian with systemd, PAM and sshd, from the mirror that apt uses, in a cache."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import boot
from .environment import CHECKOUT, cache_directory, making
from .kernels import mirror

RELEASES = ("trixie", "bookworm")
RELEASE, PYTHON = "trixie", "3.13"  # where the wheel is installed too
_SYSTEM = CHECKOUT / "tests/system"
_PACKAGES = (
    "dbus",
    "dbus-user-session",
    "keyutils",
    "kmod",
    "libpam-systemd",
    "libseccomp2",
    "openssh-client",
    "openssh-server",
    # What kagent's package depends on, as a booted machine has no network.
    "python3-bcrypt",
    "python3-cffi-backend",
    "python3-cryptography",
    "python3-pip",
    "python3-trio",
    "python3-venv",
    "swtpm",
    "systemd",
    "systemd-sysv",
)
# What systemd-creds takes to reach a TPM.  Unpacked and not installed: they depend on udev, without
# which the machine is up sooner.
_UNPACKED = (
    "libtss2-esys-3.0.2-0t64",
    "libtss2-mu-4.0.1-0t64",
    "libtss2-rc0t64",
    "libtss2-sys1t64",
    "libtss2-tcti-device0t64",
)
_UNPACK = (
    'cd "$1" && mkdir unpacked && chmod 777 unpacked && '
    f"chroot . sh -c 'cd unpacked && apt-get -q download {' '.join(_UNPACKED)} && "
    'for one in *.deb; do dpkg --extract "$one" / || exit; done\' && rm -r unpacked'
)


def tree(release: str) -> Path:
    """The folder that it is in, made if it isn't there; only root can.  Raises LookupError."""
    home = tree_home(release)
    with making(home) as missing:
        if missing:
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                options = [f"--customize-hook={_UNPACK}"] if release == RELEASE else []
                debootstrap(release, Path(folder, "tree"), _PACKAGES, *options)
                Path(folder, "tree").rename(home)
    return home


def tree_home(release: str) -> Path:
    """Where it is, or will be."""
    # Another list, another tree.
    digest = hashlib.sha256(" ".join((*_PACKAGES, _UNPACK)).encode()).hexdigest()
    return cache_directory() / "systems" / f"{release}-{digest[:16]}"


def debootstrap(release: str, tree: Path, packages: Sequence[str], *options: str) -> None:
    """Make a Debian of that release with these packages; `options` are mmdebstrap's.

    Raises CalledProcessError, LookupError.
    """
    # A mirror may stand still, and this machine's apt be told so.
    validity = subprocess.run(
        ["apt-config", "dump", "Acquire::Check-Valid-Until"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    words = ["--quiet", "--mode=root", "--variant=apt", "--format=directory"]
    words += [f"--aptopt={validity}"] if validity else []
    words += [f"--include={','.join(packages)}", *options]
    subprocess.run(
        ["mmdebstrap", *words, release, tree, mirror(release)],
        check=True,
        capture_output=True,
        text=True,
    )
    tree.chmod(0o755)


def boot_into(
    kernel: boot.Machine,
    python: Path,
    command: Sequence[str],
    folder: Path,
    seconds: float,
    terminal: bool = False,
    release: str = RELEASE,
) -> int:
    """Run `command` there, as root, when all is up; see boot.run.

    In the user-mode kernel there is a TPM 2.0, made of software.

    `folder` gets, for /run/machine there, what an installation of kagent takes, and the story.
    """
    for name in ("wheels", "packages"):
        (folder / name).mkdir()
    if release == RELEASE:
        _wheels(python, folder / "wheels")
    _packages(folder / "packages")
    shutil.copytree(CHECKOUT / "contrib", folder / "contrib")
    shutil.copy(_SYSTEM / "story.py", folder)
    manual = folder / "tests/support/manual.py"
    manual.parent.mkdir(parents=True)
    shutil.copy(CHECKOUT / "tests/support/manual.py", manual)
    return boot.run(
        kernel,
        command,
        folder,
        seconds,
        root=tree(release),
        start=_SYSTEM / "start",
        terminal=terminal,
    )


def _wheels(python: Path, folder: Path) -> None:
    """kagent's wheel, and what it needs there, into `folder`."""
    pip = [python, "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, CHECKOUT], check=True)
    [wheel] = folder.iterdir()
    versions = ("2_34", "2_28", "2_17")
    platforms = [f"--platform=manylinux_{version}_x86_64" for version in versions]
    platforms.append("--platform=manylinux2014_x86_64")
    chosen = ["--only-binary=:all:", f"--python-version={PYTHON}", *platforms]
    subprocess.run([*pip, "download", "-d", folder, *chosen, wheel], check=True)


def _packages(folder: Path) -> None:
    """kagent's package into `folder`, and the next version of it."""
    subprocess.run([CHECKOUT / "contrib/package", folder], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, "kagent")
        shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".*", "tests"))
        first = copy / "kagent/__init__.py"
        first.write_text(re.sub('(__version__ = ".*)"', r'\1.next"', first.read_text()))
        subprocess.run([copy / "contrib/package", folder], check=True, stdout=subprocess.DEVNULL)
