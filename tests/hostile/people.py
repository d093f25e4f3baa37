"""Users that nobody else is, and programs that they run in one login or another."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from kagent.keyctl import USER_KEYRING, USER_SESSION_KEYRING, KernelKeyError, syscalls
from tests.hostile.joining import join
from tests.support.programs import SECONDS, Person

CHECKOUT = Path(__file__).parents[2]
_numbers = itertools.count()


class Login(StrEnum):
    """Where an attacker's program runs: in the session that the agent was started in, or not."""

    SAME = "same login"
    ANOTHER = "another login"


class Told(NamedTuple):
    """What an attacker's program has to say at its end."""

    tries: int
    got: list[str]


def somebody(name: str, folder: Path) -> Person:
    """An ordinary user of a number that nobody has, with keys and a quota of their own."""
    uid = 1_000_000 + (os.getpid() % 100_000) * 1000 + next(_numbers)
    home = folder / name
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    return Person(name, uid, uid, home)


def begin_login(person: Person) -> None:
    """A session as pam_keyinit makes it: this process's, and so that of all that it starts."""
    syscalls.chown(join(), person.uid, person.gid)
    with person.start("true", preexec_fn=_link_user_keyring) as process:
        process.wait(SECONDS)


def forget(person: Person) -> None:
    """The kernel keeps a user's own keyring as long as the machine runs."""
    with person.start("true", preexec_fn=_destroy_user_keyrings) as process:
        process.wait(SECONDS)


def _destroy_user_keyrings() -> None:
    for keyring in (USER_SESSION_KEYRING, USER_KEYRING):
        with suppress(KernelKeyError):
            syscalls.invalidate(syscalls.get_keyring_id(keyring, False))


def _link_user_keyring() -> None:
    syscalls.link(USER_KEYRING, syscalls.SESSION_KEYRING)


def _join_another() -> None:
    join()
    _link_user_keyring()


def start(
    person: Person, login: Login, *command: str | Path, **options: object
) -> subprocess.Popen[str]:
    """Start a program of theirs in that login."""
    preparing: dict[str, Callable[[], None]] = {}
    if login is Login.ANOTHER:
        preparing["preexec_fn"] = _join_another
    return person.start(*command, **preparing, **options)


@contextmanager
def attack(
    person: Person, login: Login, program: str, *words: object
) -> Iterator[subprocess.Popen[str]]:
    """One of the attackers' programs, from when it says that it is ready to the block's end."""
    pipe = subprocess.PIPE
    command = (sys.executable, "-m", f"tests.hostile.programs.{program}", *map(str, words))
    with start(
        person, login, *command, env={"PYTHONPATH": str(CHECKOUT)}, stdin=pipe, stdout=pipe
    ) as process:
        try:
            assert line(process) == "ready"
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that an attacker's program writes."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], SECONDS)
    text = process.stdout.readline() if ready else ""
    assert text, f"{process.args!r} has ended, or hangs"
    return text.rstrip("\n")


def turn(process: subprocess.Popen[str], word: str = "turn") -> str:
    """Let an attacker's program that acts in turns do so; what it says of it."""
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return line(process)


def finish(process: subprocess.Popen[str]) -> Told:
    """Tell an attacker's program to end, and hear what it got."""
    assert process.stdin is not None
    process.stdin.close()
    return Told(**json.loads(line(process)))
