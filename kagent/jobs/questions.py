"""What the front wants to be found out about a client, and what it has the user asked."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from ..protocol.wire import (
    BOOLEAN,
    BYTE,
    STRING,
    TEXT,
    UINT32,
    UINT64,
    Codec,
    ProtocolError,
    Reader,
    Record,
    counted,
    field,
    record,
)


class ClientProcess(Record):
    """Who connected: SO_PEERCRED's pid, 0 for a process of another pid namespace, and when it was
    accepted, in nanoseconds of CLOCK_BOOTTIME."""

    pid: int = field(UINT32)
    accepted: int = field(UINT64)


class Asker(Record):
    """A client's program and those that started it, the nearest first, as text for people.

    A hint and never a proof: every program of this user can make itself look like another.  None
    is known of a process that has ended or that can't be seen.
    """

    pid: int = field(UINT32)
    programs: tuple[str, ...] = field(counted(TEXT))

    def __str__(self) -> str:
        """'git ← zsh ← kitty (process 4711)', or what else can be said."""
        if self.programs:
            return f"{' ← '.join(self.programs)} (process {self.pid})"
        if self.pid:
            return f"process {self.pid}, of which nothing can be seen"
        return "a process of another container"


class Who(Record):
    """Who is that client, and what are the hosts with these keys called?"""

    client: ClientProcess = field(record(ClientProcess))
    host_keys: tuple[bytes, ...] = field(counted(STRING))


class Origin(Record):
    """Where a request comes from: the program here, and the hosts' names in the order asked."""

    asker: Asker = field(record(Asker))
    hosts: tuple[str, ...] = field(counted(TEXT))


class Offer(Record):
    """Which identities are configured, and may be fetched for a request that is `forwarded`?"""

    forwarded: bool = field(BOOLEAN)


class Fetch(Record):
    """Have the key of the configured identity `blob` fetched."""

    blob: bytes = field(STRING)


class Purpose(IntEnum):
    """What a signature is for, as far as the data shows."""

    LOGIN = 1  # a userauth request, RFC 4252 section 7
    SSHSIG = 2  # ssh-keygen -Y sign; OpenSSH's PROTOCOL.sshsig
    UNKNOWN = 3


def _read_purpose(reader: Reader) -> Purpose:
    try:
        return Purpose(BYTE.read(reader))
    except ValueError as error:
        raise ProtocolError("unknown purpose") from error


_PURPOSE = Codec(_read_purpose, BYTE.write)


class Binding(Record):
    """A session that the connection was bound to (session-bind@openssh.com)."""

    host_key: bytes = field(STRING)
    forwarded: bool = field(BOOLEAN)


class Question(Record):
    """May this client have this signature?

    `name` is the user to log in as, or the namespace of an SSHSIG.  `bindings` are in the order in
    which they came: those with `forwarded` are the hosts that the connection came through.  A last
    one without it is shown as the host that the login goes to, so it must be the one whose session
    the request is for: only then does the signature let nobody in elsewhere.
    """

    comment: str = field(TEXT)
    fingerprint: str = field(TEXT)
    client: ClientProcess = field(record(ClientProcess))
    bindings: tuple[Binding, ...] = field(counted(record(Binding)))
    purpose: Purpose = field(_PURPOSE)
    name: str = field(TEXT)


class Worded(Record):
    """A Question in words: the whole of it, and its lines about what is asked for and by whom."""

    prompt: str = field(TEXT)
    details: str = field(TEXT)


class Ask(Record):
    """Put this question to the user."""

    prompt: str = field(TEXT)


class DeviceSignature(Record):
    """Have the token of the identity `blob` sign `data`, and tell the user `details`."""

    blob: bytes = field(STRING)
    data: bytes = field(STRING)
    details: str = field(TEXT)


class ListBehind(Record):
    """Which keys has an agent behind, for a client that came `via` those kagents?

    `binds` are the contents of all session-binds of that client, in order.
    """

    via: tuple[bytes, ...] = field(counted(STRING))
    binds: tuple[bytes, ...] = field(counted(STRING))


class SignBehind(ListBehind):
    """Have an agent behind sign `data` with its key `blob`; `flags` are SignFlags."""

    blob: bytes = field(STRING)
    data: bytes = field(STRING)
    flags: int = field(UINT32)


class TokenSignature(Record):
    """Have the PKCS#11 token of the identity `blob` sign `data` with that algorithm."""

    blob: bytes = field(STRING)
    algorithm: str = field(TEXT)
    data: bytes = field(STRING)


class Certify(Record):
    """Have the command that is configured print a certificate for the plain key `blob`."""

    blob: bytes = field(STRING)


class FromSource(Record):
    """Have the key of the identity `blob` fetched from its source, and tell the user `details`."""

    blob: bytes = field(STRING)
    details: str = field(TEXT)
    forwarded: bool = field(BOOLEAN)


class Used(Record):
    """How often a key was used, by which programs, and for which hosts, as in Origin; none of them
    if that isn't known."""

    count: int = field(UINT32)
    key: str = field(TEXT)
    programs: tuple[str, ...] = field(counted(TEXT))
    hosts: tuple[str, ...] = field(counted(TEXT))
    forwarded: bool = field(BOOLEAN)


class Notice(Record):
    """Tell the user of that, and that keys were used `more` times besides."""

    used: tuple[Used, ...] = field(counted(record(Used)))
    more: int = field(UINT32)


class Host(Record):
    """Which keys is ssh to be offered, that wants to log in to the host of that key?

    `host_key` is as ssh has bound the client's connection to it: a key or a certificate, which has
    proved itself.
    """

    client: ClientProcess = field(record(ClientProcess))
    host_key: bytes = field(STRING)


class Offering(Record):
    """What is known of a host.  Keys are named by fingerprint, also those that have certificates.

    `first` are configured for it, and `withheld` for others only; `learned` have logged in there.
    Of those in `settled` there is nothing to be learned today.  Nothing at all is unless `learns`.
    """

    first: tuple[str, ...] = field(counted(TEXT))
    withheld: tuple[str, ...] = field(counted(TEXT))
    learned: tuple[str, ...] = field(counted(TEXT))
    settled: tuple[str, ...] = field(counted(TEXT))
    learns: bool = field(BOOLEAN)


class Learn(Record):
    """The key `key` has logged in to the host `host`: both by fingerprint."""

    host: str = field(TEXT)
    key: str = field(TEXT)


Inquiry: TypeAlias = Who | Question | Host
_TO_BE_FOUND_OUT: tuple[type[Inquiry], ...] = Inquiry.__args__


def pack_inquiry(asked: Inquiry) -> bytes:
    """The packet that goes to the lookout."""
    return BYTE.write(_TO_BE_FOUND_OUT.index(type(asked))) + asked.write()


def unpack_inquiry(packet: bytes) -> Inquiry:
    """Raises ProtocolError for anything but such a packet."""
    reader = Reader(packet)
    try:
        asked = _TO_BE_FOUND_OUT[BYTE.read(reader)].read(reader)
    except IndexError as error:
        raise ProtocolError("no inquiry of that number") from error
    reader.expect_end()
    return asked
