"""Debian kernels, from the mirror that apt uses, unpacked into a cache; nothing is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .environment import cache_directory, making

# Debian release (or release's section) that has the kernel of that version.
SUITES = {"6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
DEFAULT = "6.12"
# Of what programs depend on, what runs in their processes.
_LIBRARY = re.compile(r"lib|zlib")


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    tree: Path
    release: str

    @property
    def image(self) -> Path:
        """The kernel itself."""
        return self.tree / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        """The folder to be seen as /lib/modules."""
        merged = self.tree / "usr/lib/modules"
        return merged if merged.exists() else self.tree / "lib/modules"


def kernel(version: str) -> Kernel:
    """The kernel of that version, downloaded if it isn't there.  Raises CalledProcessError."""
    home = cache_directory() / "kernels" / version
    with making(home) as missing:
        if missing:
            print(f"downloading Debian's Linux {version} to {home} (once)", flush=True)
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                _download(SUITES[version], Path(folder))
                # In one step, so that an interrupted download is never taken for a kernel.
                os.rename(Path(folder) / "tree", home)
    image = next((home / "boot").glob("vmlinuz-*"))
    return Kernel(home, image.name.removeprefix("vmlinuz-"))


def _download(suite: str, folder: Path) -> None:
    apt = private_apt(suite, folder)
    subprocess.run(["apt-get", *apt, "-qq", "update"], check=True)
    told = subprocess.run(
        ["apt-cache", *apt, "depends", "linux-image-amd64"],
        check=True,
        capture_output=True,
        text=True,
    )
    package = re.search(r"Depends: (linux-image-\S+)", told.stdout)
    if package is None:
        raise LookupError(f"{suite} has no linux-image-amd64")
    subprocess.run(["apt-get", *apt, "-qq", "download", package[1]], check=True, cwd=folder)
    tree = folder / "tree"
    [archive] = folder.glob("linux-image-*.deb")
    subprocess.run(["dpkg", "--extract", archive, tree], check=True)
    tree.chmod(0o755)
    release = next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")
    depmod = shutil.which("depmod") or "/sbin/depmod"
    subprocess.run([depmod, "-b", tree, release], check=True)


def private_apt(suite: str, folder: Path) -> list[str]:
    """Options for an apt that knows one release and leaves this machine's own alone."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"{mirror(suite)}\n")
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def unpack(suite: str, packages: Iterable[str], folder: Path, tree: Path) -> None:
    """Unpack that release's packages, and the libraries that they need, into `tree`.

    `folder` is for what is downloaded.  Raises CalledProcessError.
    """
    apt = private_apt(suite, folder)

    def run(*words: str) -> str:
        told = subprocess.run(words, check=True, capture_output=True, text=True, cwd=folder)
        return told.stdout

    run("apt-get", *apt, "-qq", "update")
    tree.mkdir(parents=True)
    wanted, new = set(packages), list(packages)
    while new:
        told = run("apt-cache", *apt, "depends", "--important", *new)
        needed = set(re.findall(r"^ *\|?(?:Pre)?Depends: ([^<\s]+)", told, re.MULTILINE))
        new = [name for name in needed - wanted if _LIBRARY.match(name)]
        wanted.update(new)
    run("apt-get", *apt, "-qq", "download", *sorted(wanted))
    for archive in folder.glob("*.deb"):
        run("dpkg", "--extract", str(archive), str(tree))


def mirror(suite: str) -> str:
    """The line of a sources.list for that release, at the mirror that apt uses here.

    Raises LookupError.
    """
    told = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(SITE) $(ORIGIN) $(LABEL)",
            "Created-By: Packages",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    sites = [line.split()[0] for line in told.stdout.splitlines() if line.endswith("Debian Debian")]
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    if not sites or not Path(keys).exists():
        raise LookupError("this machine's apt knows no Debian mirror")
    return f"deb [signed-by={keys}] {sites[0]} {suite} main"
