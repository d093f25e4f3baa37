"""Which room of kagent may import what.

What a process can't do is seen from what its package can't import; so this is a list of what each
room may have, and what isn't here is forbidden, a new room too.  From the standard library a room
may have what it likes, but for those where a list says what.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "kagent"
ANY = frozenset(sys.stdlib_module_names)
VALUES = {
    "__future__",
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "re",
    "struct",
    "typing",
}
# A server of sockets that are open: no files, no programs, no foreign code.
SERVER = VALUES | {
    "array",
    "contextlib",
    "errno",
    "fcntl",
    "hmac",
    "json",
    "math",
    "os",
    "queue",
    "resource",
    "signal",
    "socket",
    "termios",
    "threading",
    "time",
    "traceback",
}


class Room(NamedTuple):
    """The rooms, packages of others, and modules of the standard library that a room may import."""

    rooms: set[str] = set()
    others: set[str] = set()
    standard: frozenset[str] | set[str] = ANY


ROOMS = {
    "protocol": Room(standard=VALUES),
    "keyctl": Room(others={"_cffi_backend"}),
    "text": Room(),
    "log": Room({"text"}),
    "programs": Room(),
    "files": Room(),
    "confine": Room({"keyctl"}, {"_cffi_backend"}),
    "custody": Room({"files", "keyctl", "log", "protocol", "text"}),
    "openssh": Room({"confine", "log", "programs", "protocol", "text"}),
    "configuration": Room({"files", "openssh", "protocol"}),
    # All that imports cryptography, or sees a private byte.
    "private": Room({"custody", "keyctl", "protocol"}, {"bcrypt", "cryptography"}),
    "jobs": Room({"confine", "custody", "keyctl", "log", "protocol"}),
    "front": Room(
        {"confine", "custody", "jobs", "keyctl", "log", "protocol", "text"},
        {"trio"},
        SERVER,
    ),
    "workers": Room(
        {"configuration", "confine", "custody", "jobs", "keyctl", "log", "openssh"}
        | {"private", "protocol", "text"}
    ),
    "keeper": Room({"confine", "custody", "jobs", "keyctl", "log", "workers"}),
    "provision": Room(
        {"confine", "custody", "keyctl", "log", "openssh", "private", "programs", "protocol"}
        | {"text"}
    ),
    # Root looks for a key that it has, in the memory of processes that should not.
    "prove": Room({"confine", "private", "protocol"}),
    "cli": Room(
        {"configuration", "confine", "custody", "front", "jobs", "keeper", "keyctl", "log"}
        | {"openssh", "private", "programs", "protocol", "prove", "provision", "text"}
    ),
}
# Who may see a private key: the workers, the kernel's helper, and the loader command.
IMPORT_PRIVATE = {"workers", "provision", "prove", "cli"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


# All but what is run by hand, and the package's own first file.
MODULES = [path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_build")]
MODULES.remove(PACKAGE / "__init__.py")


def imported(path: Path, source: str) -> Iterator[str]:
    """What a module of that text would import at `path`: 'kagent.ROOM', or the package's name."""
    package = ("kagent", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name.split(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = (*start, *filter(None, (node.module or "").split(".")))
            for name in node.names:
                words = (*base, name.name)
                yield ".".join(words[:2]) if words[0] == "kagent" else words[0]


def forbidden(room: str, path: Path, source: str) -> set[str]:
    """What of that it may not."""
    may = ROOMS[room]
    rooms = {f"kagent.{other}" for other in (*may.rooms, room, "__version__")}
    return set(imported(path, source)) - rooms - may.others - may.standard


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_room_imports(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} is no room yet: say here what it may import"
    assert not forbidden(room, path, path.read_text())


def test_the_front_gets_at_no_private_key() -> None:
    """Nor does what it imports, however far one goes."""
    reached, waiting = set(), {"front"}
    while waiting:
        reached.add(room := waiting.pop())
        waiting |= ROOMS[room].rooms - reached
    assert not reached & {"private", "workers", "openssh"}
    assert {room for room in ROOMS if "private" in ROOMS[room].rooms} == IMPORT_PRIVATE


def test_imports_point_one_way() -> None:
    def visit(room: str, way: tuple[str, ...]) -> None:
        assert room not in way, " imports ".join((*way, room))
        for other in ROOMS[room].rooms:
            visit(other, (*way, room))

    for room in ROOMS:
        visit(room, ())


@pytest.mark.parametrize(
    "line", ["from ..private import sealed", "import subprocess", "from cryptography import x509"]
)
def test_a_forbidden_import_is_found(line: str) -> None:
    """The control."""
    assert forbidden("front", PACKAGE / "front/new.py", line)
