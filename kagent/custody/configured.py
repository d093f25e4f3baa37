"""Identities that are configured and not loaded: the kernel has their keys fetched when they are
needed, with request_key(2).

They are in files of lines, as known_hosts is: what the kernel calls the key, and then the public
key or certificate as in id_rsa.pub.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from ..files import read_own
from ..keyctl import KernelKeyError
from ..protocol.publickey import PublicKey, parse_line
from .kernel import why_not

SYSTEM_FILE = Path("/etc/kagent/identities")
_MOST_LINES = 100  # more don't fit into what an agent may answer


class FetchFailure(IntEnum):
    """Why there is no key, by the error with which request_key(2) then fails."""

    DENIED = errno.EKEYREJECTED
    FAILED = errno.EIO
    TOO_SLOW = errno.ETIMEDOUT
    UNUSABLE = errno.EBADMSG
    NOBODY = errno.ENOKEY
    BUSY = errno.EBUSY

    @property
    def meaning(self) -> str:
        """For the user, who may not see the policy nor its log."""
        return _MEANINGS[self]

    @classmethod
    def explain(cls, error: KernelKeyError) -> str:
        """What an error of request_key(2) means."""
        try:
            return cls(error.errno).meaning
        except ValueError:
            return str(error)


_LOG = "journalctl -t kagent-provision, as root, tells more"
_MEANINGS = {
    FetchFailure.DENIED: f"the machine's policy refuses the key to this user or program; {_LOG}",
    FetchFailure.FAILED: f"where the key is kept, it can't be had now; {_LOG}",
    FetchFailure.TOO_SLOW: f"where the key is kept, there is no answer in time; {_LOG}",
    FetchFailure.UNUSABLE: f"what was fetched is not the key, or of no use to the kernel; {_LOG}",
    FetchFailure.BUSY: "too many keys are being fetched for this user, or were refused just now",
    FetchFailure.NOBODY: "nothing on this machine provides the key: see kagent-provision(8)",
}


class Configured(NamedTuple):
    """A line: the key's description in the kernel, its public half, and a comment for people."""

    description: str
    public: PublicKey
    comment: str


class Configuration(NamedTuple):
    """What the files say; `faults` are their lines that say nothing of use, each with a reason."""

    identities: tuple[Configured, ...]
    faults: tuple[str, ...]

    @classmethod
    def read(cls, *files: Path) -> Configuration:
        """Read those of the files that are there; the order is kept."""
        found: list[Configured] = []
        faults: list[str] = []
        for file in files:
            try:
                lines = read_own(file).splitlines()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                faults.append(f"{file}: {getattr(error, 'strerror', None) or error}")
                continue
            for number, line in enumerate(lines, 1):
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                if len(found) + len(faults) == _MOST_LINES:
                    faults.append(
                        f"{file}:{number}: more than {_MOST_LINES} lines: the rest is left out"
                    )
                    break
                try:
                    found.append(_parse(line))
                except ValueError as error:
                    faults.append(f"{file}:{number}: {error}")
        return cls(tuple(found), tuple(faults))

    def find(self, blob: bytes) -> Configured | None:
        """The first identity with that public key."""
        return next((one for one in self.identities if one.public.blob == blob), None)


def files() -> tuple[Path, ...]:
    """The system's, and this user's own unless the user has no home."""
    try:
        own = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError:
        return (SYSTEM_FILE,)
    return (SYSTEM_FILE, Path(own, "kagent/identities"))


def _parse(line: str) -> Configured:
    description, *rest = line.split(None, 1)
    try:
        public, comment = parse_line("".join(rest))
    except ValueError as error:
        raise ValueError(f"not KEY PUBLIC-KEY, as kagent:deploy ssh-rsa AAAA…: {error}") from error
    if reason := why_not(public):
        raise ValueError(reason)
    return Configured(description, public, comment or description)
