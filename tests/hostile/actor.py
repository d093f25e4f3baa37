"""A hostile program of the same user in the same session, which does what it is told.

A fork of the tests and not a program of its own, since it is needed for each agent anew.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from kagent.custody.identity import Custody, Identity, description_of
from kagent.keyctl import KernelKeyError, KeyNotFound, syscalls
from tests.hostile.joining import join, set_timeout
from tests.hostile.programs.tools import Line, listed
from tests.support.programs import Person

_ANCHOR = "kagent:session"
_SIGNING = "enc=pkcs1 hash=sha256"
_MASKS = (0, 0x3F3F3F3F, 0x3F000000, 0x003F0000, 0x01010000, 0x08080000, 0x20200000, 0x0B0B0000)

# What is planted, by name; each fits into a record's place.
RECORDS: dict[str, Callable[[Identity], bytes]] = {
    "free, sealed": lambda one: one.replace(custody=Custody.SEALED).write(),
    "free, kernel": lambda one: one.write(),
    "first": lambda one: one.replace(order=1, comment="first").write(),
    "damaged": lambda one: one.write()[:-9],
    "of another version": lambda one: one.write()[:-1] + b"\x63",
    "empty": lambda one: b"\0",
}
PLACES = ("session", "user", "anchor", "below the anchor", "a new anchor")
VERBS = (
    "take away",
    "link in",
    "move",
    "unlink",
    "clear",
    "setperm",
    "revoke",
    "invalidate",
    "timeout",
    "update",
)


class Link(NamedTuple):
    """A key in a keyring, as somebody who goes through the session's keyrings comes to it."""

    keyring: int
    serial: int
    type: str
    name: str


class Actor:
    """The tests' end of it."""

    def __init__(self, person: Person) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_Hostile(theirs, person).live, daemon=True)
        self._process.start()
        theirs.close()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def plant(self, place: str, record: str, keys: dict[bytes, bytes]) -> None:
        """Leave a record for each blob, and beside it a key if there is one."""
        self._do("plant", place, record, keys)

    def act(self, verb: str, which: int, other: int) -> bool:
        """Do that to one of the keys in reach, with another or a keyring; whether it could."""
        return bool(self._do("act", verb, which, other))

    def around(self, told: set[int], digest: bytes) -> list[bytes]:
        """Every signature that the kernel makes for it."""
        return list(self._do("around", told, digest))

    def join(self, which: int, digest: bytes) -> tuple[list[bytes], list[bytes]]:
        """Join a session by one of the names that there are: the signatures and payloads there."""
        got: tuple[list[bytes], list[bytes]] = self._do("join", which, digest)
        return got

    def loot(self, told: set[int]) -> list[bytes]:
        """The payloads of all keys that it can read."""
        return list(self._do("loot", told))

    def _do(self, *words: object) -> Any:
        self._pipe.send(words)
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer


class _Hostile:
    """The program."""

    def __init__(self, pipe: Connection, person: Person) -> None:
        self._pipe = pipe
        self._person = person
        self._seen: set[int] = set()

    def live(self) -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setresgid(self._person.gid, self._person.gid, self._person.gid)
            os.setresuid(self._person.uid, self._person.uid, self._person.uid)
        self._own = syscalls.get_keyring_id(syscalls.PROCESS_KEYRING, True)
        self._session = syscalls.get_keyring_id(syscalls.SESSION_KEYRING, False)
        while True:
            try:
                name, *words = self._pipe.recv()
            except EOFError:
                return
            try:
                self._pipe.send(getattr(self, name)(*words))
            except Exception as error:
                self._pipe.send(error)

    def plant(self, place: str, record: str, keys: dict[bytes, bytes]) -> None:
        with suppress(KernelKeyError):
            within = self._place(place)
            for blob, key in keys.items():
                description = description_of(blob)
                payload = RECORDS[record](Identity(blob, "forged", Custody.KERNEL))
                with suppress(KernelKeyError):
                    syscalls.add_key("user", description, payload, within)
                if key:
                    with suppress(KernelKeyError):
                        syscalls.add_key("asymmetric", description, key, within)

    def act(self, verb: str, which: int, other: int) -> bool:
        links = sorted(self._reach(), key=lambda one: (one.name, one.type, one.serial))
        keyrings = [one.serial for one in links if one.type == "keyring"] + [self._session]
        if not links:
            return False
        link, target = links[which % len(links)], keyrings[other % len(keyrings)]
        actions: dict[str, Callable[[], object]] = {
            "take away": lambda: self._take_away(links),
            "link in": lambda: syscalls.link(link.serial, target),
            "move": lambda: syscalls.move(link.serial, link.keyring, target),
            "unlink": lambda: syscalls.unlink(link.serial, link.keyring),
            "clear": lambda: syscalls.clear(target),
            "setperm": lambda: syscalls.setperm(link.serial, _MASKS[other % len(_MASKS)]),
            "revoke": lambda: syscalls.revoke(link.serial),
            "invalidate": lambda: syscalls.invalidate(link.serial),
            "timeout": lambda: set_timeout(link.serial, 1),
            "update": lambda: self._update(link, links[other % len(links)]),
        }
        try:
            actions[verb]()
        except KernelKeyError:
            return False
        return True

    def around(self, told: set[int], digest: bytes) -> list[bytes]:
        self._look()
        made = []
        for serial in self._seen | told:
            with suppress(KernelKeyError):
                size = syscalls.pkey_query(serial, _SIGNING).max_sig_size
                made.append(syscalls.pkey_sign(serial, _SIGNING, digest, size))
        return made

    def loot(self, told: set[int]) -> list[bytes]:
        self._look()
        payloads = []
        for serial in self._seen | told:
            with suppress(KernelKeyError):
                payloads.append(syscalls.read(serial))
        return payloads

    def join(self, which: int, digest: bytes) -> tuple[list[bytes], list[bytes]]:
        """In a process of its own, since a session that is left doesn't come back."""
        names = sorted({line.name for line in self._listed() if line.type == "keyring"})
        ours, theirs = multiprocessing.Pipe()
        child = os.fork()
        if child == 0:
            try:
                self._session = join(names[which % len(names)])
                theirs.send((self.around(set(), digest), self.loot(set())))
            finally:
                os._exit(0)
        theirs.close()
        try:
            got: tuple[list[bytes], list[bytes]] = ours.recv()
        except EOFError:
            got = [], []  # no keyring of that name may be joined
        os.waitpid(child, 0)
        ours.close()
        return got

    def _place(self, place: str) -> int:
        if place == "session":
            return self._session
        if place == "user":
            return syscalls.USER_KEYRING
        if place == "a new anchor":
            return syscalls.add_key("keyring", _ANCHOR, None, self._session)
        try:
            anchor = syscalls.search(self._session, "keyring", _ANCHOR)
        except KeyNotFound:
            anchor = syscalls.add_key("keyring", _ANCHOR, None, self._session)
        if place == "below the anchor":
            return syscalls.add_key("keyring", _ANCHOR, None, anchor)
        return anchor

    def _take_away(self, links: list[Link]) -> None:
        """Have a hold of one's own on all of them."""
        for link in links:
            with suppress(KernelKeyError):
                syscalls.link(link.serial, self._own)

    def _update(self, link: Link, other: Link) -> None:
        """Damage it, or make it what another is."""
        if link.type == "user":
            syscalls.update(link.serial, syscalls.read(other.serial) or b"\0")
        else:
            syscalls.update(link.serial, b"\0")

    def _reach(self) -> Iterator[Link]:
        waiting, gone_through = [self._session, syscalls.USER_KEYRING, self._own], set()
        while waiting:
            keyring = waiting.pop()
            if keyring in gone_through:
                continue
            gone_through.add(keyring)
            serials: list[int] = []
            with suppress(KernelKeyError):
                serials = memoryview(syscalls.read(keyring)).cast("i").tolist()
            for serial in serials:
                with suppress(KernelKeyError):
                    kind, _, _, _, name = syscalls.describe(serial).split(";", 4)
                    if kind == "keyring":
                        waiting.append(serial)
                    if not name.startswith("_uid"):
                        yield Link(keyring, serial, kind, name)

    def _look(self) -> None:
        """What was seen once is tried for ever."""
        self._seen |= {link.serial for link in self._reach()}
        self._seen |= {line.serial for line in self._listed()}

    def _listed(self) -> list[Line]:
        return [line for line in listed() if line.uid == self._person.uid]
