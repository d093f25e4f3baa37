"""Known host keys: the known_hosts format of sshd(8), both ways.  Bytes in, values out.

Which keys a name has is what a destination constraint needs; which names a key has is what a
question to the user needs.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from ..protocol.patterns import matches, matches_list
from ..protocol.publickey import PublicKey, parse_line
from ..protocol.wire import ProtocolError

# ssh_config(5), UserKnownHostsFile and GlobalKnownHostsFile; ~ is the user's home.
DEFAULT_FILES = (
    "~/.ssh/known_hosts",
    "~/.ssh/known_hosts2",
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssh/ssh_known_hosts2",
)

_FIRST_WORD = re.compile(rb"([^ \t]+)[ \t]+(.*)", re.DOTALL)
_HASHED = re.compile(rb"\|1\|([^|]+)\|([^|]+)")
_PORT = re.compile(r"\[(.*)\]:\d+")
_SALT_LENGTH = 20  # bytes


class Marker(Enum):
    """What a line says of its key."""

    NONE = b""
    AUTHORITY = b"@cert-authority"
    REVOKED = b"@revoked"


class Line(NamedTuple):
    """A line of a known_hosts file; `number` counts from 1."""

    number: int
    marker: Marker
    names: bytes
    written_key: bytes

    @property
    def key(self) -> PublicKey | None:
        """The key; None if it is damaged or of a type that isn't known."""
        try:
            return parse_line(self.written_key.decode("utf-8", "surrogateescape"))[0]
        except ProtocolError:
            return None

    def fits(self, host: str) -> bool:
        """Whether the line is about `host`: a name, an address, or either as [it]:port."""
        name = host.encode("utf-8", "surrogateescape")
        if self.names.startswith(b"|"):
            return _is_hash_of(self.names, name)
        # Byte by byte, and only ASCII letters have two cases: as OpenSSH does.
        return matches_list(name.lower().decode("latin-1"), self.names.lower().decode("latin-1"))


def lines(data: bytes) -> Iterator[Line]:
    """What a file says, without comments and without lines that say nothing well-formed."""
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.lstrip(b" \t")
        if text.startswith(b"#"):
            continue
        marker = Marker.NONE
        if text.startswith(b"@"):
            # As OpenSSH: a tab ends the marker only in a line without spaces.
            word, _, text = text.partition(b" " if b" " in text else b"\t")
            text = text.lstrip(b" \t")
            try:
                marker = Marker(word)
            except ValueError:
                continue
        parts = _FIRST_WORD.fullmatch(text)
        if parts and not parts[1].startswith(b"@"):  # a second marker
            yield Line(number, marker, parts[1], parts[2])


def keys_of(data: bytes, host: str) -> Iterator[Line]:
    """The lines about `host`, whatever their markers, with `key` None where it is damaged."""
    return (line for line in lines(data) if line.fits(host))


def names_of(data: bytes, blob: bytes, candidates: Iterable[str] = ()) -> tuple[str, ...]:
    """The names under which the host key `blob` is known; none if any line revokes it.

    `data` is all files, joined.  Hashes and wildcards can't be turned back into names: they
    answer for `candidates`.  Authorities give no name, for that a certificate would have to be
    verified first.
    """
    names: dict[str, None] = {}
    written = base64.b64encode(blob)
    candidates = tuple(candidates)
    for line in lines(data):
        if written not in line.written_key or (key := line.key) is None or key.blob != blob:
            continue
        if line.marker is Marker.REVOKED:
            return ()
        if line.marker is Marker.NONE:
            written_names = line.names.decode("utf-8", "surrogateescape").split(",")
            plain = [name for name in written_names if name and not set("|*?!").intersection(name)]
            names |= dict.fromkeys(name for name in (*plain, *candidates) if line.fits(name))
    return tuple(names)


def names_of_certificate(
    data: bytes, host: PublicKey, candidates: Iterable[str], now: float
) -> tuple[str, ...]:
    """Those of `candidates` that a host's certificate is for, by an authority that is known for
    them; none if any line revokes it.  A certificate's own names have no ports.

    That the authority has signed it was verified before.  `now` is in seconds since 1970.
    """
    certificate = host.certificate
    if certificate is None or not certificate.is_of_host(now):
        return ()
    authority = certificate.authority_key
    trusting = []
    for line in lines(data):
        if line.marker is Marker.NONE or (key := line.key) is None:
            continue
        if line.marker is Marker.REVOKED and key.blob in (authority.blob, host.plain_blob):
            return ()
        if line.marker is Marker.AUTHORITY and key.blob == authority.blob:
            trusting.append(line)
    return tuple(
        dict.fromkeys(
            name
            for name in candidates
            if any(matches(without_port(name), one) for one in certificate.principals)
            and any(line.fits(name) for line in trusting)
        )
    )


def without_port(name: str) -> str:
    """`it` for [it]:port, and for itself."""
    return _PORT.sub(r"\1", name)


def _is_hash_of(entry: bytes, name: bytes) -> bool:
    """Whether `entry`, "|1|salt|hash", is about `name`: HMAC-SHA1 with the salt as its key."""
    parts = _HASHED.fullmatch(entry)
    if parts is None:
        return False
    try:
        salt, hashed = (base64.b64decode(part, validate=True) for part in parts.groups())
    except binascii.Error:
        return False
    if len(salt) != _SALT_LENGTH:
        return False
    return hmac.digest(salt, name, "sha1") == hashed
