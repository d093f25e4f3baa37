"""Runs tests with a module changed, on this machine, where nobody else sees the change."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.machine.environment import CHECKOUT

from .swapping import Swap, make, swap_for

if TYPE_CHECKING:
    import pytest

_PACKAGE = CHECKOUT / "kagent"
_libc = ctypes.CDLL(None, use_errno=True)
# linux/sched.h, linux/mount.h
_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18

_NO_TESTS = 5  # pytest.ExitCode.NO_TESTS_COLLECTED

KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"


class Changed:
    """A copy of kagent in which modules are changed, and which tests then meet as kagent.

    It is mounted over the checkout's for them alone, so their agents, other processes, have it too.
    With `ready`, tests and kagent are imported here once, and only functions can be changed.
    """

    def __init__(self, ready: Sequence[str] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kagent-mutation-"))
        self._folder.chmod(0o755)
        shutil.copytree(_PACKAGE, self._folder / "kagent", ignore=lambda *_: ["__pycache__"])
        self._number = 0
        self._ready = bool(ready)
        if ready:
            _be_silent()
            _pytest(["--collect-only", *ready])

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def outcome(self, module: str, source: str, tests: Sequence[str], seconds: float) -> str | None:
        """What comes of `tests`, which are pytest's words, with that source in a module's place.

        None where it can't be told here: what was imported has been made by what is changed.
        """
        file = self._folder / module
        before = file.read_text()
        swap = swap_for(str(CHECKOUT / module), before, source) if self._ready else {}
        if swap is None:
            return None
        file.write_text(source)
        # Compiled code that was kept is told from the next by its second and its length.
        self._number += 1
        os.utime(file, (self._number, self._number))
        try:
            outcome = self._run(swap, tests, seconds)
        finally:
            file.write_text(before)
        return None if self._ready and outcome == SURVIVED else outcome

    def _run(self, swap: Swap, tests: Sequence[str], seconds: float) -> str:
        child = os.fork()
        if child == 0:
            _exit_with(lambda: self._contained(swap, tests))
        end = time.monotonic() + seconds
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > end:
                os.kill(child, signal.SIGTERM)  # all in it end with it
                os.waitpid(child, 0)
                return TIMED_OUT
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return SURVIVED if code == 0 else KILLED

    def _contained(self, swap: Swap, tests: Sequence[str]) -> int:
        """In processes and mounts of their own: whatever a test leaves behind ends."""
        _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID))
        first = os.fork()
        if first:
            signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGKILL))
            return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        _mount(None, "/", _MS_REC | _MS_PRIVATE)
        _mount(self._folder / "kagent", _PACKAGE, _MS_BIND)
        _check(_libc.mount(b"proc", b"/proc", b"proc", 0, None))
        second = os.fork()
        if second == 0:
            _be_silent()
            _exit_with(lambda: _run_tests(tests) if make(swap) else 0)
        while True:  # the first process of its kind is parent to all orphans
            pid, status = os.wait()
            if pid == second:
                return os.waitstatus_to_exitcode(status)


def _exit_with(call: Callable[[], int]) -> None:
    code = 3
    try:
        code = call()
    finally:
        os._exit(code & 0xFF)


def _be_silent() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


def _run_tests(names: Sequence[str]) -> int:
    """pytest's exit code, 0 also where the change has given all of them other names."""
    code = _pytest(sorted({name.split("::")[0] for name in names}), _Only(names))
    return 0 if code == _NO_TESTS else code


class _Only:
    """Has pytest run some tests of those that it finds, in their order.

    Not as words for pytest: it ends with an error where one has a name with what is changed in it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._place = {name: place for place, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = [one for one in items if one.nodeid in self._place]
        items[:] = sorted(found, key=lambda one: self._place[one.nodeid])


def _pytest(words: Sequence[str], *plugins: object) -> int:
    import hypothesis
    import pytest

    os.chdir(CHECKOUT)
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # finding them takes longer than most tests
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # what fails isn't made smaller
    hypothesis.settings.register_profile("mutation", database=None, deadline=None, phases=phases)
    options = ["-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
    options += ["--hypothesis-profile=mutation", "--hypothesis-seed=0"]
    return pytest.main(["-x", *options, *words], plugins=plugins)


def _mount(what: Path | None, where: str | Path, flags: int) -> None:
    _check(_libc.mount(bytes(what) if what else None, os.fsencode(where), None, flags, None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
