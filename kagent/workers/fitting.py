"""Which keys a host is to be offered first, and which not: by kagent.toml, and by what was learned.

For the lookout.  What it tells changes the order of a list, and what is in it; it is for nobody to
rely on, since who may write these files may have it say what they like.
"""

from __future__ import annotations

import difflib  # noqa: F401  # this and tomllib for kagent.configuration, which is late with them
import time
import tomllib  # noqa: F401

from .. import learned, log
from ..configuration.identities import Entry, Identities
from ..jobs.questions import Host, Offering
from ..openssh.hostnames import HostNames
from ..protocol.patterns import matches, matches_list
from ..protocol.publickey import PublicKey
from .processes import lineage
from .wording import destination

# A change by hand is seen soon, and many logins at once read the configuration once.
_SECONDS = 1.0


class Fitting:
    """Tells what is offered; remembers what it has read."""

    def __init__(self) -> None:
        self._until = 0.0  # of the monotonic clock
        self._identities = Identities((), ())
        self._faults: tuple[object, ...] = ()
        self._limited: tuple[tuple[str, Entry], ...] = ()  # by fingerprint, those with hosts
        self._unusable = ""

    def offering(self, host: Host) -> Offering:
        """What is known of it."""
        self._look()
        key = PublicKey.parse_any(host.host_key)
        name = key.fingerprint()
        first, withheld = self._configured(host, key)
        known = self._learned(name) if self._identities.learn_hosts else []
        today = learned.today()
        return Offering(
            first,
            withheld,
            tuple(line.key for line in known),
            tuple(line.key for line in known if line.day == today),
            self._identities.learn_hosts,
        )

    def _look(self) -> None:
        if time.monotonic() < self._until:
            return
        self._identities = read = Identities.read()
        self._limited = tuple((one.public.fingerprint(), one) for one in read.entries if one.hosts)
        if read.faults != self._faults:
            self._faults = read.faults
            for fault in read.faults:
                log.warning(str(fault))
        self._until = time.monotonic() + _SECONDS

    def _configured(self, host: Host, key: PublicKey) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The keys that are for that host, and those that are for others only."""
        if not self._limited:
            return (), ()
        told = destination(lineage(host.client))
        names = HostNames(told).names(key, time.time())
        first, withheld = [], []
        for fingerprint, entry in self._limited:
            if fits(names, entry.hosts):
                first.append(fingerprint)
            elif not entry.elsewhere:
                withheld.append(fingerprint)
        if withheld and not names:
            log.info(
                f"what host has the key {key.fingerprint()} isn't known from known_hosts: it isn't "
                "offered the keys that have elsewhere = false"
            )
        return tuple(first), tuple(withheld)

    def _learned(self, host: str) -> list[learned.Learned]:
        try:
            lines = learned.read(host)
            self._unusable = ""
            return lines
        except learned.Unusable as error:
            if str(error) != self._unusable:
                log.warning(f"what was learned of hosts can't be read: {error}")
            self._unusable = str(error)
            return []


def fits(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    """Whether a host of these names is one of those, as after Host in ssh_config(5).

    Whichever name ssh was told, it isn't if one of them is excluded.
    """
    excluded = [one.removeprefix("!").lower() for one in patterns if one.startswith("!")]
    names = tuple(name.lower() for name in names)
    if any(matches(name, pattern) for name in names for pattern in excluded):
        return False
    return any(matches_list(name, ",".join(patterns).lower()) for name in names)
