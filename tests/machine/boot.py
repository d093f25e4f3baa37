"""Boots a kernel over this machine's files and runs a command in it."""

from __future__ import annotations

import lzma
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .environment import CHECKOUT, busybox, cache_directory
from .kernels import Kernel
from .um import UserModeKernel

Machine = Kernel | UserModeKernel

HERE = Path(__file__).parent
_DRIVERS = ("virtio_pci", "9p", "9pnet_virtio", "overlay")

# An emulator of processors that change their own code, as a kernel does when it starts, fails at
# that now and then: the kernel panics before its first program runs.
_TRIES = 3
_BEGIN_SECONDS = 300.0


class MachineError(Exception):
    """The machine ended, or didn't, without telling how the command did."""


class Booted:
    """A machine in which a command runs."""

    def __init__(self, process: subprocess.Popen[bytes], told: Path) -> None:
        self._process = process
        self._told = told

    def exit_code(self, seconds: float) -> int:
        """The command's, at its end.  Raises MachineError."""
        try:
            ended = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise MachineError(f"the machine hadn't ended after {seconds:.0f} seconds") from None
        if not self._told.exists():
            raise MachineError(f"the machine broke off (its program's exit code is {ended})")
        return int(self._told.read_text())


def run(
    kernel: Machine, command: Sequence[str], exchange: Path, seconds: float, **more: object
) -> int:
    """Run `command` as root in a machine; its exit code.  See `booted`.  Raises MachineError."""
    with booted(kernel, command, exchange, **more) as machine:  # type: ignore[arg-type]
        return machine.exit_code(seconds)


@contextmanager
def booted(
    kernel: Machine,
    command: Sequence[str],
    exchange: Path,
    *,
    root: Path = Path("/"),
    start: Path = HERE / "start",
    output: IO[bytes] | None = None,
    terminal: bool = False,
) -> Iterator[Booted]:
    """A machine that runs `command` as root; it ends with the block, if not before.

    `root` is the folder that its files are in, and `start` the script that makes it ready.
    Its output goes to `output`, or ours, as it comes.  `terminal`: our terminal is the command's.
    `exchange` is the one folder that both see, at /run/machine there.
    """
    shutil.copy(start, exchange / "start")
    Path(exchange, "environment").write_text(
        f"MODULES={shlex.quote(str(kernel.modules))}\n"
        f"ROOT={shlex.quote(str(root))}\n"
        f"CHECKOUT={shlex.quote(str(CHECKOUT))}\n"
        f"CACHE={shlex.quote(str(cache_directory()))}\n"
        f"TERMINAL={'yes' if terminal else ''}\n"
    )
    Path(exchange, "command").write_text(f"{shlex.join(command)}\n")
    told, begun = exchange / "exit-code", exchange / "begun"
    for file in (told, begun):
        file.unlink(missing_ok=True)
    for tries_left in reversed(range(_TRIES)):
        with _started(kernel, exchange, root, output, terminal) as process:
            if _begins(process, begun) or not tries_left:
                yield Booted(process, told)
                return
        print("the machine ended before its first program ran: once more")


def _begins(process: subprocess.Popen[bytes], begun: Path) -> bool:
    """Whether the machine gets to its first program, or takes long for that, rather than ends."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    while not begun.exists() and time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def _started(
    kernel: Machine,
    exchange: Path,
    root: Path,
    output: IO[bytes] | None,
    terminal: bool,
) -> Iterator[subprocess.Popen[bytes]]:
    """The machine's process."""
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if isinstance(kernel, UserModeKernel):
            words = kernel.command(exchange, folder, terminal)
        else:
            words = _qemu(kernel, _initramfs(kernel, folder), exchange, root)
        with subprocess.Popen(
            # Should we be killed, the machine ends with us.
            ["setpriv", "--pdeathsig", "KILL", *words],
            stdin=None if terminal else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def _qemu(kernel: Kernel, initramfs: Path, exchange: Path, root: Path) -> list[str]:
    share = "local,security_model=none,multidevs=remap"
    return [
        "qemu-system-x86_64",
        *("-machine", "q35", "-cpu", "max", "-accel", "tcg,thread=multi,tb-size=512"),
        *("-smp", "2", "-m", "3G", "-nodefaults", "-no-reboot", "-display", "none"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-device", "virtio-rng-pci"),
        *("-fsdev", f"{share},id=host,path={root},readonly=on"),
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
        *("-fsdev", f"{share},id=exchange,path={exchange}"),
        *("-device", "virtio-9p-pci,fsdev=exchange,mount_tag=exchange"),
        *("-fsdev", f"{share},id=modules,path={kernel.modules},readonly=on"),
        *("-device", "virtio-9p-pci,fsdev=modules,mount_tag=modules"),
        *("-kernel", str(kernel.image), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on rdinit=/init"),
    ]


def _initramfs(kernel: Kernel, home: Path) -> Path:
    program = busybox()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("bin", "dev", "proc", "modules"):
            (root / name).mkdir()
        shutil.copy(program, root / "bin/busybox")
        shutil.copy(HERE / "init", root / "init")
        (root / "init").chmod(0o755)
        (root / "bin/sh").symlink_to("busybox")
        for number, module in enumerate(_with_dependencies(kernel)):
            (root / f"modules/{number:02}.ko").write_bytes(_unpacked(module))
        names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
        packed = subprocess.run(
            [program, "cpio", "-o", "-H", "newc"],
            input=names.encode(),
            cwd=root,
            check=True,
            capture_output=True,
        )
    (home / "initramfs").write_bytes(packed.stdout)
    return home / "initramfs"


def _with_dependencies(kernel: Kernel) -> Iterator[Path]:
    """The drivers' files, each after what it needs; what is built in has none."""
    folder = kernel.modules / kernel.release
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        module, _, wanted = line.partition(":")
        needs[module] = wanted.split()
    by_name = {Path(module).name.split(".")[0].replace("-", "_"): module for module in needs}
    done: list[str] = []
    for driver in _DRIVERS:
        if driver in by_name:
            # modules.dep lists a module's needs with the deepest last.
            done += [*reversed(needs[by_name[driver]]), by_name[driver]]
    return (folder / module for module in dict.fromkeys(done))


def _unpacked(module: Path) -> bytes:
    if module.suffix == ".xz":
        return lzma.decompress(module.read_bytes())
    if module.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", module], check=True, capture_output=True).stdout
    return module.read_bytes()
