"""Files that say what kagent is to do: who could have written them, as far as the system tells."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

UID = GID = 54321
OTHER = 54322
_USERS = {"me": (UID, GID), "eve": (OTHER, OTHER)}

# Read by a process that is confined as the one that reads them for the agent.
READ = """
import os, sys
from kagent.confine import profiles
from kagent.files import read_own
confinement = profiles.offer_worker(0)
os.setgroups([])
os.setgid({gid})
os.setuid({uid})
confinement.install()
try:
    print(read_own({path!r}))
except ValueError as error:
    print(error)
"""

MINE = "read"
OTHERS = "others can write to it"


def _users(**groups: int) -> str:
    first = {name: gid for name, (_, gid) in _USERS.items()} | groups
    lines = [f"{name}:x:{uid}:{first[name]}::/:/bin/sh" for name, (uid, _) in _USERS.items()]
    return "\n".join(["root:x:0:0::/:/bin/sh", *lines, ""])


def _read(folder: Path, users: str, groups: str, mode: int, acl: bytes = b"") -> str:
    """What becomes of a file of that user's own group, on a machine with those users and groups."""
    file = folder / "kagent.toml"
    file.write_text(MINE)
    os.chown(file, UID, GID)
    file.chmod(mode)
    if acl:
        os.setxattr(file, "system.posix_acl_access", acl)
    for name, content in ("passwd", users), ("group", groups):
        (folder / name).write_text(content)
    mount = " && ".join(f"mount --bind {folder}/{name} /etc/{name}" for name in ("passwd", "group"))
    program = READ.format(uid=UID, gid=GID, path=str(file))
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.stdout.strip()


def _acl(*, named: int) -> bytes:
    """As of `setfacl -m u:NAMED:rw`: acl(5), linux/posix_acl_xattr.h."""
    nobody = 0xFFFFFFFF
    entries = [
        *((1, 6, nobody), (2, 6, named)),  # the owner, and who is named
        *((4, 4, nobody), (16, 6, nobody), (32, 4, nobody)),  # the group, the mask, all others
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes users")
@pytest.mark.parametrize(
    ("users", "groups", "mode", "told"),
    [
        (_users(), f"me:x:{GID}:", 0o664, MINE),
        (_users(), f"me:x:{GID}:me", 0o664, MINE),
        (_users(), f"me:x:{GID}:me,eve", 0o664, OTHERS),
        (_users(eve=GID), f"me:x:{GID}:", 0o664, OTHERS),  # it is her first group
        (_users(), f"staff:x:{GID}:", 0o664, OTHERS),
        (_users(me=OTHER), f"me:x:{GID}:", 0o664, OTHERS),
        (_users(), "", 0o664, OTHERS),
        ("", f"me:x:{GID}:", 0o664, OTHERS),
        (_users(eve=GID), f"me:x:{GID}:eve", 0o644, MINE),
        (_users(), f"me:x:{GID}:", 0o666, OTHERS),
    ],
)
def test_a_group_that_may_write(
    folder: Path, users: str, groups: str, mode: int, told: str
) -> None:
    """Is the user's, if it is nobody else's."""
    assert _read(folder, users, f"{groups}\neve:x:{OTHER}:\n", mode).startswith(told)


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes users")
def test_who_is_named_beside_the_group(folder: Path) -> None:
    """By an access control list; what the mode says of the group is then what that one may."""
    users, groups = _users(), f"me:x:{GID}:\n"
    try:
        told = _read(folder, users, groups, 0o644, _acl(named=OTHER))
    except OSError as error:
        pytest.skip(f"no access control lists there: {error.strerror}")
    assert told.startswith(OTHERS)
