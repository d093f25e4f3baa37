"""Host keys by the names that the user knows them under, which known_hosts files have.

A hashed name can only be tried.  Tried is what the ssh that asks was told on its command line, what
the user's own ssh_config(5) mentions, and this machine.
"""

from __future__ import annotations

import getopt
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..protocol.publickey import PublicKey
from ..protocol.wire import ProtocolError
from ..text import shown
from .hostkeys import (
    DEFAULT_FILES,
    Line,
    Marker,
    lines,
    names_of,
    names_of_certificate,
    without_port,
)

_LARGEST = 1 << 24  # bytes of a file; a hundred thousand hosts
_MOST_TRIED = 5000

_CONFIGURATION = "~/.ssh/config"
# In one pass whatever is in it: it may be any program's word.
_SETTING = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)", re.DOTALL)
_STANDARD_PORT = "22"

# ssh.c, for getopt(3).
_OPTIONS = "1246ACGKMNTVXYZafgknqstvxyB:D:E:F:I:J:L:O:P:Q:R:S:W:b:c:e:i:l:m:o:p:w:"
_URI = re.compile(r"ssh://(?:[^/]*@)?([^/:]+)(?::(\d+))?/?")


class Destination(NamedTuple):
    """Where an ssh was told to go, and the names to look that host's key up by, the best first."""

    host: str
    names: tuple[str, ...]
    port: str

    @classmethod
    def of(cls, command: Sequence[str]) -> Destination | None:
        """Read ssh's own command line; None if it names no host.

        What the configuration makes of it is not known here: that could run programs.
        """
        try:
            before, rest = getopt.getopt(list(command[1:]), _OPTIONS)
            if not rest:
                return None
            after, _ = getopt.getopt(rest[1:], _OPTIONS)
        except getopt.GetoptError:
            return None
        host, middle = rest[0].rpartition("@")[2], []
        if uri := _URI.fullmatch(rest[0]):
            host, middle = uri[1], [("-p", uri[2])] if uri[2] else []
        settings: dict[str, str] = {}  # of what is given twice, ssh takes the first
        for option, value in (*before, *middle, *after):
            if option == "-p":
                settings.setdefault("port", value)
            elif option == "-o" and (parts := _SETTING.fullmatch(value)):
                settings.setdefault(parts[1].lower(), _unquoted(parts[2]))
        names = (settings.get("hostkeyalias"), settings.get("hostname"), host)
        told = tuple(name.replace("%h", host) for name in names if name)
        return cls(host, told, settings.get("port", _STANDARD_PORT))


class HostNames:
    """What the known_hosts files of user and system say, read once.

    Files that ssh's command line names are left out: it may be any program's.
    """

    def __init__(self, destination: Destination | None = None) -> None:
        self._data = b"\n".join(_content(name) for name in DEFAULT_FILES)
        names, ports = _mentioned()
        self._told: tuple[str, ...] = ()
        if destination:
            names = [*destination.names, *names]
            ports = [destination.port, *ports]
            self._told = tuple(_entries(destination.names, [destination.port, _STANDARD_PORT]))
        here = ("localhost", "127.0.0.1", "::1", os.uname().nodename)
        tried = _entries([*names, *here], dict.fromkeys([*ports, _STANDARD_PORT]))
        self._tried = tuple(itertools.islice(tried, _MOST_TRIED))

    def name(self, blob: bytes) -> str:
        """The host of that key: by the name that it was called by, or else another of its names,
        or else the key's fingerprint."""
        try:
            key = PublicKey.parse(blob)
        except ProtocolError:
            return "an unknown host with a key of an unknown type"
        known = names_of(self._data, key.plain_blob, self._tried)
        for name in (*self._told, *known):
            if name in known:
                return shown(name)
        return f"an unknown host with the key {key.fingerprint()}"

    def names(self, host: PublicKey, now: float) -> tuple[str, ...]:
        """All names under which a host is known that has proved itself, without ports.

        `now` is in seconds since 1970, for a certificate.
        """
        known = names_of(self._data, host.plain_blob, self._tried)
        if host.certificate is not None:
            known += names_of_certificate(
                self._data, host, (*self._tried, *host.certificate.principals), now
            )
        return tuple(dict.fromkeys(map(without_port, known)))

    def named(self, host: str) -> Iterator[PublicKey]:
        """The keys that a host of that name has, here: [it]:port for another port than 22."""
        return (key for line in self._lines() if line.fits(host) and (key := line.key))

    def by_fingerprint(self) -> dict[str, PublicKey]:
        """All keys of hosts."""
        return {key.fingerprint(): key for line in self._lines() if (key := line.key)}

    def _lines(self) -> Iterator[Line]:
        return (line for line in lines(self._data) if line.marker is Marker.NONE)


def _entries(names: Iterable[str], ports: Iterable[str]) -> Iterator[str]:
    """As they stand in known_hosts."""
    for name, port in itertools.product(names, ports):
        yield (name if port == _STANDARD_PORT else f"[{name}]:{port}").lower()


def _mentioned() -> tuple[list[str], list[str]]:
    """Names and ports in the user's configuration, whatever they are there for."""
    names: list[str] = []
    ports: list[str] = []
    for line in os.fsdecode(_content(_CONFIGURATION)).splitlines():
        if parts := _SETTING.fullmatch(line):
            keyword, value = parts[1].lower(), _unquoted(parts[2])
            if keyword in ("host", "hostname", "hostkeyalias"):
                names += [word for word in value.split() if not set("*?!%").intersection(word)]
            elif keyword == "port":
                ports.append(value)
    return names, ports


def _unquoted(value: str) -> str:
    return value.strip().removeprefix('"').removesuffix('"')


def _content(name: str) -> bytes:
    try:
        with open(os.path.expanduser(name), "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return b""
