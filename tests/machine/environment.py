"""This machine made ready: Debian packages, and a Python of our own with what kagent needs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent

# Command -> the Debian package that has it.
PACKAGES = {
    "Xvfb": "xvfb",
    "dbus-daemon": "dbus-daemon",
    "dbus-monitor": "dbus-bin",
    "dbus-run-session": "dbus-daemon",
    "dunst": "dunst",
    "fish": "fish",
    "git": "git",
    "gpg": "gpg",
    "gpg-agent": "gpg-agent",
    "gnome-keyring-daemon": "gnome-keyring",
    "gpgconf": "gpgconf",
    "keyctl": "keyutils",
    "mandoc": "mandoc",
    "notify-send": "libnotify-bin",
    "openssl": "openssl",
    "pass": "pass",
    "secret-tool": "libsecret-tools",
    "softhsm2-util": "softhsm2",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "systemd-analyze": "systemd",
    "zsh": "zsh",
}
# What builds the user-mode kernel.
BUILD_PACKAGES = {
    "bc": "bc",
    "bison": "bison",
    "depmod": "kmod",
    "flex": "flex",
    "gcc": "gcc",
    "make": "make",
    "xz": "xz-utils",
}
MACHINE_PACKAGES = {
    "depmod": "kmod",
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "zstd": "zstd",
}


class SetUpError(Exception):
    """This machine can't be made ready; the text says what to do about it."""


def cache_directory() -> Path:
    """Where downloads and environments are kept from one run to the next."""
    if os.getuid() == 0:
        return Path("/var/cache/kagent")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kagent"


def memory() -> int:
    """This machine's, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def room(folder: Path) -> int:
    """What a new file there may take, in bytes; the folder itself may have to be made."""
    while not folder.exists():
        folder = folder.parent
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


def install(packages: dict[str, str]) -> None:
    """Install the packages of those commands that are missing.  Raises SetUpError."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for command, name in packages.items() if not shutil.which(command, path=path)]
    if missing:
        _apt_install(missing)


def sk_dummy() -> Path:
    """OpenSSH's provider library for tests, a token that is always there and touched.

    Its package would bring fourteen others along.  Raises SetUpError.
    """
    return unpacked("openssh-tests") / "usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"


def busybox() -> Path:
    """A static one, which that of this machine may not be.  Raises SetUpError."""
    tree = unpacked("busybox-static")
    return next(path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.exists())


def unpacked(package: str) -> Path:
    """The files of a Debian package, unpacked into a cache and not installed.

    Raises SetUpError.
    """
    home = cache_directory() / "packages" / package
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as folder:
            _apt_get("download", package, cwd=folder)
            [archive] = Path(folder).glob("*.deb")
            _run(["dpkg", "--extract", archive, f"{folder}/tree"])
            os.rename(f"{folder}/tree", home)
    return home


@contextmanager
def making(home: Path) -> Iterator[bool]:
    """Whether `home` is to be made by us, now: what another run is making, we wait for."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f".{home.name}.lock").open("a") as lock:
        if not home.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield not home.exists()


def _apt_install(packages: list[str]) -> None:
    command = ["install", "-y", "--no-install-recommends", *packages]
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise SetUpError(f"this is missing, and I can't install it: apt-get {' '.join(command)}")
    print(f"installing {' '.join(packages)}", flush=True)
    _apt_get(*command)


def _apt_get(*words: str, cwd: str | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], ["apt-get", *words]):
        told = subprocess.run(step, env=environment, cwd=cwd, capture_output=True, text=True)
    if told.returncode:
        raise SetUpError(f"apt-get {' '.join(words)} failed:\n{told.stderr}")


def python_with(name: str, *requirements: str, base: Path | None = None) -> Path:
    """A Python of its own with `requirements`, made if it isn't there, of the interpreter `base` or
    the system's.  Raises SetUpError.

    It is made anew when pyproject.toml changes, or a program: they are copied and not linked.
    """
    base = base or _base_python()
    marks = (str(CHECKOUT), str(base), *requirements)
    digest = hashlib.sha256("\n".join(marks).encode())
    for content in (
        "kagent/provision/door",
        "pyproject.toml",
        *sorted((CHECKOUT / "contrib" / "bin").iterdir()),
    ):
        digest.update((CHECKOUT / content).read_bytes())
    home = cache_directory() / "python" / f"{name}-{digest.hexdigest()[:16]}"
    python = home / "bin/python"
    with making(home / "done") as missing:
        if missing:
            print(f"making {home} (once; pip takes a minute or more)", flush=True)
            # Debian's that was unpacked has pip beside it, which no module of it finds.
            wheels = list((base.parents[1] / "share/python-wheels").glob("pip-*.whl"))
            apart = bool(wheels) and base.parents[1] != Path("/usr")
            _run([base, "-m", "venv", *(["--without-pip"] if apart else []), home])
            if apart:
                _run([python, f"{wheels[0]}/pip", "install", "-q", wheels[0]])
            _run([python, "-m", "pip", "install", "-q", *requirements])
            (home / "done").touch()
    return python


def _base_python() -> Path:
    # An ordinary user must be able to run it too: the system's rather than one of root's home.
    for candidate in ("/usr/bin/python3", sys.executable):
        probe = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([candidate, "-c", probe], capture_output=True).returncode == 0:
            return Path(candidate)
    if Path("/usr/bin/apt-get").exists() and os.getuid() == 0:
        _apt_install(["python3-venv"])
        return Path("/usr/bin/python3")
    raise SetUpError("a Python of 3.11 or later with venv is missing: apt-get install python3-venv")


def _run(command: Iterable[str | Path]) -> None:
    words = [str(word) for word in command]
    told = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if told.returncode:
        raise SetUpError(f"{' '.join(words)} failed:\n{told.stdout}{told.stderr}")
