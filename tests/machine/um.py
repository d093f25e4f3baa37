"""A user-mode kernel: Linux as a process of this machine, built from Debian's source package."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .environment import cache_directory, making, memory, room
from .kernels import private_apt

_SUITE = "sid"
_CONFIG = Path(__file__).with_name("um.config")
_MEMORY = 4 << 30  # at most; no more of it is taken than used


@dataclass(frozen=True)
class UserModeKernel:
    """A built one."""

    program: Path
    processors: int

    @property
    def modules(self) -> Path:
        """The folder to be seen as /lib/modules."""
        return self.program.parent / "lib/modules"

    def command(self, exchange: Path, folder: Path, terminal: bool) -> list[str]:
        """What boots it over this machine's files; `folder` is for what it needs meanwhile."""
        shutil.copy(_CONFIG.with_name("um-init"), exchange / "init")
        return [
            *("env", f"TMPDIR={memory_folder()}", str(self.program), f"uml_dir={folder}"),
            *("seccomp=on", f"ncpus={self.processors}", f"mem={_memory()}"),
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
            *("con=null", "ssl=null", f"con0={'fd:0' if terminal else 'null'},fd:1", "quiet"),
            f"init={exchange.resolve()}/init",
        ]


def _memory() -> int:
    """Of the user-mode machine, in bytes; it is a file that grows as memory is used."""
    return min(_MEMORY, memory() // 2)


def memory_folder() -> str:
    """Where that file is: in memory, unless there is as little room as in a container."""
    for folder in ("/dev/shm", "/tmp", "/var/tmp"):
        executable = not os.statvfs(folder).f_flag & os.ST_NOEXEC
        if executable and room(Path(folder)) >= _memory():
            return folder
    raise LookupError(f"no folder for temporary files has room for {_memory() >> 20} MB")


def found() -> Path | None:
    """The newest kernel of this configuration that has been built."""
    kernels = _shelf().glob(f"um-{_digest()}-*/linux")
    return max(kernels, key=lambda program: program.stat().st_mtime, default=None)


def kernel(processors: int = 2) -> UserModeKernel:
    """The kernel, built if it isn't there, in some minutes.

    Raises CalledProcessError, LookupError.
    """
    program = found()
    if program is None:
        with making(_shelf() / f"um-{_digest()}"):
            program = found() or _build()
    return UserModeKernel(program, processors)


def _build() -> Path:
    with tempfile.TemporaryDirectory(dir=_shelf()) as name:
        folder = Path(name)
        source, version = _source(folder)
        (source / "arch/um/configs/machine_defconfig").write_bytes(_CONFIG.read_bytes())
        made = folder / "made"
        for target in ("machine_defconfig", "linux", "modules", "modules_install"):
            # Tests may run meanwhile, and theirs is the right of way.
            make = ["nice", "make", "-s", "-j2", "-C", source, "ARCH=um"]
            _run([*make, f"INSTALL_MOD_PATH={made}", target])
        (source / "linux").rename(made / "linux")
        home = _shelf() / f"um-{_digest()}-{version}"
        # In one step, so that an interrupted build is never taken for a kernel.
        made.rename(home)
    return home / "linux"


def _source(folder: Path) -> tuple[Path, str]:
    """The unpacked source of the newest kernel there, and its version."""
    apt = private_apt(_SUITE, folder)
    _run(["apt-get", *apt, "-qq", "update"])
    names = re.findall(
        r"^linux-source-(\d+)\.(\d+)$",
        _run(["apt-cache", *apt, "pkgnames", "linux-source-"]),
        re.MULTILINE,
    )
    if not names:
        raise LookupError(f"{_SUITE} has no linux-source")
    major, minor = max(names, key=lambda name: [int(number) for number in name])
    _run(["apt-get", *apt, "-qq", "download", f"linux-source-{major}.{minor}"], cwd=folder)
    [package] = folder.glob("linux-source-*.deb")
    version = _run(["dpkg-deb", "--field", package, "Version"]).strip()
    _run(["dpkg-deb", "--extract", package, folder / "package"])
    [archive] = folder.glob("package/usr/src/linux-source-*.tar.*")
    _run(["tar", "--extract", "--directory", folder, "--file", archive])
    [source] = folder.glob("linux-source-*/")
    return source, version


def _shelf() -> Path:
    return cache_directory() / "kernels"


def _digest() -> str:
    return hashlib.sha256(_CONFIG.read_bytes()).hexdigest()[:16]


def _run(words: list[str | Path], cwd: Path | None = None) -> str:
    return subprocess.run(
        words, check=True, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
    ).stdout
