"""What is known of a key besides the key, as it is kept in the kernel beside it."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from enum import StrEnum
from functools import lru_cache

from ..protocol.constraints import CONSTRAINTS, Constraint, IdleLifetime, Lifetime
from ..protocol.wire import (
    BYTE,
    STRING,
    TEXT,
    UINT64,
    Codec,
    ProtocolError,
    Reader,
    Record,
    field,
    nested,
)
from . import clock

PREFIX = "kagent:"
DESCRIPTION_LENGTH = 57  # kagent:SHA256: and 43 characters
_VERSION = 4
# In bytes, of a record that is read once: others can write a thousand of a megabyte each.
_LONGEST_KNOWN = 8192


class Custody(StrEnum):
    """How a private key is held."""

    KERNEL = "kernel"  # as an asymmetric key; the kernel signs
    SEALED = "sealed"  # as ciphertext that a key in the kernel opens; a one-shot process signs
    DEVICE = "device"  # by a FIDO token; what is kept only names it to the token
    TOKEN = "token"  # by a PKCS#11 token, to which a process talks while the key is held  # noqa: S105
    BEHIND = "behind"  # by another agent; kagent holds nothing of it
    SOURCE = "source"  # not yet: it is fetched from where the configuration says


@lru_cache(maxsize=16)  # asked for three times in a signature
def description_of(blob: bytes) -> str:
    """The description of an identity's keys: for a plain key, its fingerprint as ssh shows it.

    A type and description are unique in a keyring, so adding a key again replaces it.
    """
    digest = hashlib.sha256(blob).digest()
    return f"{PREFIX}SHA256:{b64encode(digest).rstrip(b'=').decode()}"


def _nanoseconds(constraints: tuple[Constraint, ...], kind: type[Lifetime | IdleLifetime]) -> int:
    return sum(one.seconds for one in constraints if isinstance(one, kind)) * clock.SECOND


def with_deadline(record: bytes, deadline: int) -> bytes:
    """An identity's record with another deadline, for who reads nothing else of it."""
    start = len(record) - len(UINT64.write(deadline) + BYTE.write(_VERSION))
    return record[:start] + UINT64.write(deadline) + record[-1:]


def _read_custody(reader: Reader) -> Custody:
    try:
        return Custody(TEXT.read(reader))
    except ValueError as error:
        raise ProtocolError(f"unknown custody: {error}") from error


_CUSTODY = Codec(_read_custody, TEXT.write)


class Identity(Record):
    """An identity's record.

    `why` says why the kernel doesn't sign itself, where it doesn't, and for custody `token` it is
    the library that talks to the token; `order` grows from one addition to the next; `deadline` is
    when it ends, in nanoseconds of CLOCK_BOOTTIME, 0 for never: nobody can set that clock, and it
    goes on while the machine sleeps.
    """

    blob: bytes = field(STRING)
    comment: str = field(TEXT)
    custody: Custody = field(_CUSTODY)
    why: str = field(TEXT, default="")
    constraints: tuple[Constraint, ...] = field(nested(CONSTRAINTS), default=())
    order: int = field(UINT64, default=0)
    deadline: int = field(UINT64, default=0)
    version: int = field(BYTE, default=_VERSION)

    @classmethod
    def parse(cls, data: bytes) -> Identity:
        """Read a record.  Raises ProtocolError for a damaged one, or one of another version."""
        return cls._known(data) if len(data) <= _LONGEST_KNOWN else cls._read(data)

    @classmethod
    @lru_cache(1000)
    def _known(cls, data: bytes) -> Identity:
        return cls._read(data)

    @classmethod
    def _read(cls, data: bytes) -> Identity:
        if data[-1:] != bytes((_VERSION,)):
            # Of what it says nothing is guessed: it could be a constraint.
            raise ProtocolError(
                f"its record is of version {data[-1] if data else 'none'}, and this kagent reads "
                f"version {_VERSION}: to use the key, load it again"
            )
        return super().parse(data)

    def beginning(self, now: int) -> Identity:
        """With the deadline that it has if its lifetime begins at `now`, as that of `ended`.

        One of no seconds is over then.
        """
        spans = [
            one.seconds for one in self.constraints if isinstance(one, Lifetime | IdleLifetime)
        ]
        return self.replace(deadline=now + min(spans) * clock.SECOND if spans else 0)

    @property
    def _lifetime(self) -> int:
        return _nanoseconds(self.constraints, Lifetime)

    @property
    def idle(self) -> int:
        """How long it stays without being used, in nanoseconds; 0 for as long as it may."""
        return _nanoseconds(self.constraints, IdleLifetime)

    @property
    def latest(self) -> int:
        """When it ends however much it is used, if it is just `beginning`; 0 for never."""
        lifetime, idle = self._lifetime, self.idle
        return self.deadline - min(lifetime, idle or lifetime) + lifetime if lifetime else 0

    def ended(self, now: int) -> bool:
        """Whether its time is over at `now`, in nanoseconds of CLOCK_BOOTTIME."""
        return bool(self.deadline) and now >= self.deadline

    @property
    def lives(self) -> str:
        """Where its key is, in the words of every listing: 'sealed', 'token LIBRARY'."""
        return f"{self.custody} {self.why}" if self.custody is Custody.TOKEN else str(self.custody)

    @property
    def description(self) -> str:
        """What its keys are called in a keyring."""
        return description_of(self.blob)
