"""Shows which key each host is offered first: by what was learned at logins, and by kagent.toml.
forget takes out what was learned of a host or of a key; off and on write learn-hosts to your own
kagent.toml, which says whether anything is learned, and whether that counts."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

from ...configuration import editing, toml
from ...configuration.identities import Identities
from ...files import read_own
from ...learned import File, Learned, Unusable, path, read
from ...openssh.hostnames import HostNames
from ...protocol.messages import IdentitiesAnswer, RequestIdentities
from ...protocol.publickey import PublicKey, parse_line
from ...protocol.wire import ProtocolError
from ...text import printable
from ..client import AgentError, AgentUnavailable, Client
from ..options import fail

_WORD = "learn-hosts"
_SETTING = re.compile(rf"^[ \t]*{_WORD}[ \t]*=.*$", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
_NAMELESS = {False: "unknown", True: "hashed in known_hosts"}
_SEVERAL = "several keys: the order stays"


class Row(NamedTuple):
    """A host, by its names or patterns, the key that it is offered, and since when or by what."""

    hosts: list[str]
    host_key: str
    key: str
    comment: str
    told: str
    note: str
    hashed: bool = False  # in known_hosts under names that can only be tried


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument(
        "action", nargs="?", choices=("forget", "on", "off"), help="without one, show them"
    )
    parser.add_argument(
        "which", nargs="*", metavar="HOST|KEY", help="of which host, or which key, to forget all"
    )
    parser.add_argument("--all", dest="everything", action="store_true", help="forget all")
    parser.add_argument("--json", dest="as_json", action="store_true", help="for programs")


def run(*, action: str | None, which: list[str], everything: bool, as_json: bool) -> int:
    """Do it; the exit code."""
    if (action == "forget") != bool(which or everything) or (which and everything):
        fail("kagentctl hosts: forget takes hosts, keys or --all, and nothing else does")
    try:
        if action == "forget":
            return _forget(which)
        if action:
            return _switch(action == "on")
        return _show(as_json=as_json)
    except Unusable as error:
        fail(f"kagentctl hosts: {error}")


def _show(*, as_json: bool) -> int:
    configured = Identities.read()
    comments = _comments(configured)
    rows = [*_configured(configured, comments), *_learned(comments)]
    if as_json:
        everything = {"learns": configured.learn_hosts, "hosts": [row._asdict() for row in rows]}
        print(json.dumps(everything, indent=2))
        return 0
    for row in rows:
        names = ", ".join(row.hosts) or f"{_NAMELESS[row.hashed]}, {row.host_key}"
        note = f" ({row.note})" if row.note else ""
        print(printable(f"{names}: {row.key} {row.comment}".rstrip() + f", {row.told}{note}"))
    if not rows and configured.learn_hosts:
        print("Nothing is learned yet: a login with a key of kagent's tells which one a host takes")
    if not configured.learn_hosts:
        print("Nothing is learned, and what was learned doesn't count: kagentctl hosts on")
    return 0


def _configured(configured: Identities, comments: dict[str, str]) -> Iterator[Row]:
    for entry in configured.entries:
        if entry.hosts:
            note = "" if entry.elsewhere else "and no others"
            key = entry.public.fingerprint()
            yield Row(list(entry.hosts), "", key, comments.get(key, ""), entry.place, note)


def _learned(comments: dict[str, str]) -> Iterator[Row]:
    names = HostNames()
    hosts = names.by_fingerprint()
    lines = read()
    count: dict[str, int] = {}
    for line in lines:
        count[line.host] = count.get(line.host, 0) + 1
    for line in sorted(lines, key=lambda line: (line.host, line.key)):
        known = names.names(hosts[line.host], 0) if line.host in hosts else ()
        note = _SEVERAL if count[line.host] > 1 else ""
        comment = comments.get(line.key, "")
        told, hashed = f"last on {line.day}", line.host in hosts and not known
        yield Row(list(known), line.host, line.key, comment, told, note, hashed)


def _comments(configured: Identities) -> dict[str, str]:
    """By fingerprint: of the keys that the agent lists, and of those that are configured."""
    named = {entry.public.fingerprint(): entry.comment for entry in configured.entries}
    found = {key: comment for key, comment in named.items() if comment != key}
    try:
        with Client() as client:
            listed = client.request(RequestIdentities(), IdentitiesAnswer).identities
    except (AgentUnavailable, AgentError):
        return found
    for one in listed:
        try:
            found[PublicKey.parse(one.blob).fingerprint()] = one.comment
        except ProtocolError:
            continue
    return found


def _forget(which: list[str]) -> int:
    """What was learned of all of these; of everything if they are none."""
    if not os.path.lexists(path()):
        return _nothing_of(which)
    unknown = []
    with File(to_write=True) as file:

        def without(lines: list[Learned]) -> list[Learned]:
            if not which:
                return []
            for one in which:
                wanted = _fingerprints(one)
                kept = [line for line in lines if not wanted.intersection(line[:2])]
                if len(kept) == len(lines):
                    unknown.append(one)
                lines = kept
            return lines

        file.change(without)
    return _nothing_of(unknown)


def _nothing_of(which: list[str]) -> int:
    for one in which:
        sys.stderr.write(f"kagentctl hosts: nothing was learned of {printable(one)}\n")
    return int(bool(which))


def _fingerprints(one: str) -> set[str]:
    """Of what is named by its fingerprint, its file, its comment or its name."""
    if one.startswith("SHA256:"):
        return {one}
    if os.path.exists(one):
        try:
            return {parse_line(read_own(one))[0].fingerprint()}
        except (OSError, ValueError) as error:
            fail(f"kagentctl hosts: {one}: {getattr(error, 'strerror', None) or error}")
    named = {key.fingerprint() for key in HostNames().named(one)}
    commented = {name for name, comment in _comments(Identities.read()).items() if comment == one}
    return named | commented


def _switch(on: bool) -> int:
    """Write it to the user's own file, in place of what it says of that."""
    line = f"{_WORD} = {'true' if on else 'false'}"

    def switched(content: str) -> str:
        before = tomllib.loads(content)
        table = _TABLE.search(content)
        head, rest = (
            (content[: table.start()], content[table.start() :]) if table else (content, "")
        )
        head = _SETTING.sub(line, head, count=1) if _WORD in before else f"{line}\n{head}"
        if tomllib.loads(head + rest) != {**before, _WORD: on}:
            fail(f"kagentctl hosts: {own}: can't be changed by a program: write {line!r} there")
        return head + rest

    try:
        own = editing.own_file()
        if isinstance(fault := toml.read(own), toml.Fault):
            fail(f"kagentctl hosts: {fault}; nothing was changed")
        editing.change(switched)
    except (editing.NoHome, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        fail(f"kagentctl hosts: {why}; nothing was changed")
    print(f"{own}: {line}")
    return 0
