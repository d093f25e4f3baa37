"""Destination constraints as ssh-add -h takes them, with the hosts' keys from known_hosts files."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

from ...openssh.hostkeys import DEFAULT_FILES, Marker, keys_of
from ...protocol.constraints import Hop, HostKey, PermittedHop
from .report import Report, fatal

_WORDS = {Marker.NONE: "", Marker.AUTHORITY: "ca ", Marker.REVOKED: "revoked "}


def permitted_hops(
    texts: Sequence[str], files: Sequence[str], report: Report
) -> tuple[PermittedHop, ...]:
    """'[user@]host' and 'host>[user@]host' as the agent takes them, ssh-add(1).

    `files` are known_hosts files, ssh's own without any.  Ends the program where a text makes no
    sense, or a host has no key in any of them.
    """
    files = files or DEFAULT_FILES
    hops = []
    for number, text in enumerate(texts):
        origin = Hop("", "")
        before, arrow, after = text.partition(">")
        if arrow:
            origin = _hop(before, files, report)
        target = _hop(after if arrow else text, files, report)
        if arrow and "@" in before:
            fatal(f"Invalid key constraint {before}: cannot specify user on 'from' host")
        report.debug(
            2,
            f"constraint {number}: {_told(origin, '(ORIGIN)')} > {_told(target, '(ANY)')}",
        )
        hops.append(PermittedHop(origin, target))
    return tuple(hops)


def _told(hop: Hop, anywhere: str) -> str:
    user = f"{hop.user}@" if hop.user else ""
    return f"{user}{hop.hostname or anywhere} ({len(hop.keys)} keys)"


def _hop(text: str, files: Sequence[str], report: Report) -> Hop:
    user, at, host = text.rpartition("@")
    if not host:
        if not at:
            fatal(f'Invalid key destination constraint "{text}": does not specify user or host')
        return Hop(user, "")  # any host
    keys: list[HostKey] = []
    for file in files:
        path = _expanded(file)
        report.debug(2, f'looking up host keys for "{host}" in {path}')
        keys += _keys(host, path, report)
    if not keys:
        fatal(f'No host keys found for destination "{host}"')
    return Hop(user, host, keys=tuple(keys))


def _keys(host: str, path: str, report: Report) -> list[HostKey]:
    keys = []
    for line in keys_of(_content(path, report), host):
        key = line.key
        if key is None:
            report.debug(1, f"{path}:{line.number}: parse error in hostkeys file")
            continue
        kind = f"{_WORDS[line.marker]}key type {key.kind}"
        report.debug(3, f"found {kind} in file {path}:{line.number}")
        if line.marker is not Marker.REVOKED:
            keys.append(HostKey(key, line.marker is Marker.AUTHORITY))
    return keys


def _content(path: str, report: Report) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        report.debug(1, f"fopen {path}: {error.strerror}")
        return b""


def _expanded(path: str) -> str:
    """`~` and `~user` at the front are homes as the user database has them, not as $HOME says."""
    if not path.startswith("~"):
        return path
    name, _, rest = path[1:].partition("/")
    try:
        home = (pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())).pw_dir
    except KeyError:
        fatal(f"No such user {name}" if name else f"No such uid {os.getuid()}")
    return f"{home.rstrip('/')}/{rest.lstrip('/')}"
