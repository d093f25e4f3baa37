"""Pythons of other versions: this machine's, or Debian's, unpacked and not installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import environment
from .environment import SetUpError, cache_directory, making
from .kernels import unpack

# The Debian release that has it; no release has had 3.12.
SUITES = {"3.11": "bookworm", "3.12": "", "3.13": "trixie", "3.14": "testing"}
# Where pyenv and uv have theirs, below a home.
_MANAGERS = (".pyenv/versions/{}.*/bin/{}", ".local/share/uv/python/cpython-{}.*/bin/{}")
_PROBE = "import sys, ssl, ensurepip; print('%d.%d' % sys.version_info[:2])"


def python(version: str) -> Path:
    """An interpreter of that version: the system's, or else Debian's, or else the user's own.

    Raises SetUpError, CalledProcessError.
    """
    name = f"python{version}"
    system = Path("/usr/bin", name)
    if _is(system, version):
        return system
    if SUITES[version] and shutil.which("apt-get"):
        return _debians(version)
    candidates = [Path(found) for found in [shutil.which(name)] if found]
    for pattern in _MANAGERS:
        candidates += sorted(Path.home().glob(pattern.format(version, name)))
    for found in candidates:
        if _is(found, version):
            return found
    raise SetUpError(f"{name} is missing, and no release of Debian has it: pyenv and uv do")


def _is(python: Path, version: str) -> bool:
    try:
        told = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True)
    except FileNotFoundError:
        return False
    return told.stdout.strip() == version


def _debians(version: str) -> Path:
    """Debian's, which runs on this machine with the libraries that it came with."""
    packages = (f"python{version}", f"python{version}-minimal", "python3-pip-whl")
    digest = hashlib.sha256(" ".join((*packages, SUITES[version])).encode()).hexdigest()
    home = cache_directory() / "packages" / f"python{version}-{digest[:16]}"
    with making(home) as missing:
        if missing:
            environment.install({"patchelf": "patchelf"})
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                tree = Path(folder, "tree")
                unpack(SUITES[version], packages, Path(folder), tree)
                # An older libc wouldn't do, and a loader that is named on the command line is what
                # /proc/PID/exe would name.
                [loader] = tree.glob("usr/lib/*/ld-linux*.so.*")
                libraries = home / loader.parent.relative_to(tree)
                words = ["--set-interpreter", libraries / loader.name]
                words += ["--force-rpath", "--set-rpath", libraries]
                program = tree / "usr/bin" / f"python{version}"
                subprocess.run(["patchelf", *words, program], check=True)
                tree.chmod(0o755)
                tree.rename(home)
    return home / "usr/bin" / f"python{version}"
