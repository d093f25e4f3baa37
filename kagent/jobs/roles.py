"""What each of kagent's processes is, possesses, and may still ask the kernel for.

One table, by which the keeper makes its children what they are before they read anything, and by
which contrib/SECURITY.md tells of them.  The rule: before a process reads what somebody else wrote,
it has lost what it doesn't need.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from .. import log
from ..confine import memory, process, profiles
from ..confine.seccomp import Filter
from ..custody.rings import KeeperRings, find_sealing_key
from ..keyctl import KernelKeyError, Keyring, enter_private_session, with_patience

# What the user's own programs possess too.
_AROUND = "login, user, home"


class Role(NamedTuple):
    """One kind of process.

    `name` is what ps shows of it; `lives`, `reads` and `keys` say for how long, what of others'
    writing, and whether it sees private keys; `possesses` has names of keyrings, as in
    custody.rings.  `profile` makes its filter, from where it begins to read, for the serials of
    these keyrings; without one it is left as it is, as a program that starts others must be.
    `calls` says it in words.  With `confined_later` it installs the filter itself, when it has
    opened what it needs.
    """

    name: str
    title: str
    lives: str
    reads: str
    keys: str
    possesses: tuple[str, ...] = ()
    profile: Callable[..., Filter] | None = None
    calls: str = "all: it starts programs"
    locks_memory: bool = False
    confined_later: bool = False

    def prepare(self, rings: KeeperRings) -> None:
        """Compile its filter once, by the keeper, for all its forks.  Raises CannotConfine."""
        if self.profile and "inbox" not in self.possesses:
            _compiled(self.profile, *(one.serial for one in self._held(rings, None)))

    def assume(self, rings: KeeperRings, inbox: Keyring | None = None) -> None:
        """Make this process, just forked, one of this kind.

        Raises KernelKeyError and CannotConfine: it must end then.
        """
        process.set_name(self.name)
        if self.locks_memory:
            memory.lock_memory()
            tell_if_limit_was_lowered(self.title)
        try:
            held = self._held(rings, inbox)
            besides = rings.shared.around if _AROUND in self.possesses else []
            with_patience(lambda: enter_private_session(*held, besides=besides))
        except KernelKeyError:
            # The user's quota is used up, say.  What has no key calls left reaches no keyring.
            if self.possesses or not self.profile or self.confined_later:
                raise
        if not self.confined_later:
            self.confine(*held)

    def confine(self, *held: Keyring) -> None:
        """Lose the system calls that aren't in the profile.  Raises CannotConfine."""
        if self.profile:
            _compiled(self.profile, *(one.serial for one in held)).install()

    def _held(self, rings: KeeperRings, inbox: Keyring | None) -> list[Keyring]:
        names = [name for name in self.possesses if name != _AROUND]
        return [one for one in (_get(rings, inbox, name) for name in names) if one]


@cache
def _compiled(profile: Callable[..., Filter], *serials: int) -> Filter:
    return profile(*serials)


def _sign_worker(sealed: int) -> Filter:
    return profiles.sign_worker(sealed, find_sealing_key(Keyring(sealed)).serial)


def _load_worker(inbox: int = 0) -> Filter:
    """Without an inbox it can leave no key of the kernel's: there is no key of serial 0."""
    return profiles.load_worker(inbox)


def tell_if_limit_was_lowered(title: str) -> None:
    """Log it where another process of the user has taken locked memory away, by prlimit(2)."""
    if memory.memory_limit_lowered():
        log.warning(
            f"somebody has lowered kagent's RLIMIT_MEMLOCK since it was started: what a {title} "
            "handles may be swapped out"
        )


def _get(rings: KeeperRings, inbox: Keyring | None, name: str) -> Keyring | None:
    shared = rings.shared
    return {
        "inbox": inbox,
        "private": shared.private,
        "lent": shared.lent,
        "withdrawn": shared.withdrawn,
        "fetched": shared.fetched,
        "sealed": rings.sealing,
    }[name]


FOREGROUND = Role(
    "kagent",
    "process in the foreground",
    "as long as the agent, with -D or as a service; the keeper is its fork",
    "what the keeper has systemd told",
    "no",
    ("login, user",),
    calls="all: it is as it was started",
    # kagent.keeper.foreground
)
KEEPER = Role(
    "kagent-keeper",
    "keeper",
    "as long as the agent",
    "job headers of a fixed size, from the front; exit codes of its children",
    "no",
    (_AROUND, "private", "lent", "withdrawn", "fetched", "sealed", "inbox"),
)
FRONT = Role(
    "kagent-front",
    "front",
    "as long as the agent; another is started if it dies",
    "all that clients send but private keys; records of keys",
    "no",
    (_AROUND, "private", "lent", "withdrawn", "fetched"),
    calls="those of a server of open sockets: no file, no program, no connection",
    # It installs its own filter, profiles.front, when its event loop is there and no client yet.
)
LOAD = Role(
    "kagent-load",
    "load worker",
    "for one key",
    "the one key, or a token's PIN",
    "for milliseconds, until it has handed it over",
    ("inbox",),
    _load_worker,
    "to compute, and to add keys",
    locks_memory=True,
)
SEAL = Role(
    "kagent-seal",
    "seal worker",
    "for one key that is to be sealed",
    "the key, which is opaque to it",
    "for milliseconds, while it makes it ciphertext",
    ("sealed",),
    _sign_worker,
    "to compute, and to read keys",
    locks_memory=True,
)
REFUSE = Role(
    "kagent-refuse",
    "refusing worker",
    "for one key that can't be taken",
    "the one key, to throw it away",
    "for milliseconds",
    (),
    profiles.reader,
    "to compute",
)
SIGNERS = Role(
    "kagent-signers",
    "parent of the sign workers",
    "as long as there are sealed keys, until none has signed for ten minutes",
    "a byte from a worker, which says that it begins",
    "no",
    ("sealed",),
    calls="to compute, to read keys, and to fork sign workers",
    # It installs its own filter, profiles.signers, before the first of them.
)
SIGN = Role(
    "kagent-sign",
    "sign worker",
    "until it has signed with a sealed key, for one burst of requests",
    "what is to be signed, which is opaque to it",
    "for a tenth of a second at most, or for one signature",
    ("sealed",),
    _sign_worker,
    "to compute, and to read keys",
)
LOOKOUT = Role(
    "kagent-lookout",
    "lookout",
    "from a login or another signature on, until there was none for ten minutes",
    "/proc, known_hosts, kagent.toml and what was learned of hosts, to tell who asks, for which "
    "host, and which keys that takes",
    "no",
    (),
    profiles.lookout,
    "to read files",
)
BIND = Role(
    "kagent-bind",
    "bind worker",
    "for one host's proof of who it is",
    "the host's key, certificate and signature",
    "no",
    (),
    profiles.reader,
    "to compute",
)
ASK = Role(
    "kagent-ask",
    "ask worker",
    "for one question to you",
    "the question, in the lookout's words",
    "no",
)
DEVICE = Role(
    "kagent-device",
    "device worker",
    "for one signature by a token",
    "what is to be signed; the token's handle",
    "no",
    (),
    calls="all: it starts OpenSSH's helper, with no keyring left",
)
TOKEN = Role(
    "kagent-token",
    "token process",
    "as long as keys of a PKCS#11 token are held; one for each library that talks to tokens",
    "what is to be signed; certificates; the token's PIN, which it hands on and wipes",
    "no",
    (),
    profiles.token_process,
    "to compute, and to follow links, once it has started OpenSSH's helper",
    locks_memory=True,
    confined_later=True,
)
OFFER = Role(
    "kagent-offer",
    "offer worker",
    "for one look at which keys are configured",
    "the files that configure them",
    "no",
    ("fetched",),
    profiles.offer_worker,
    "to read files, and to look at keys",
)
FETCH = Role(
    "kagent-fetch",
    "fetch worker",
    "for one key that the kernel has fetched",
    "the files that configure them",
    "no",
    ("fetched",),
    profiles.fetch_worker,
    "to look at keys, and to have one fetched, once it has read those files",
    confined_later=True,
)
RELAY = Role(
    "kagent-relay",
    "relay worker",
    "for one question to one agent behind",
    "what that agent answers",
    "no",
    (),
    profiles.reader,
    "to compute, once it is connected to that agent, and before it reads anything",
    confined_later=True,
)
LEARN = Role(
    "kagent-learn",
    "learn worker",
    "for a host's first login with a key, and its first of a day",
    "which key it was, from the front; the file that says so of others",
    "no",
    (),
    profiles.learn_worker,
    "to compute, and to write one file, which it has opened before it reads anything",
    confined_later=True,
)


CERTIFY = Role(
    "kagent-certify",
    "certificate worker",
    "for one certificate that a command of yours prints",
    "the files that configure it; then, confined, what the command has printed",
    "no",
    (),
    profiles.reader,
    "all: it starts that program; to compute, once it has ended",
    confined_later=True,
)
NOTIFY = Role(
    "kagent-notify",
    "notice worker",
    "for one notice to you that keys were used",
    "what is known of who used them",
    "no",
)
SOURCE = Role(
    "kagent-source",
    "source worker",
    "for one key that a source of yours gives",
    "the files that configure keys; a key file, and what your own commands and you answer",
    "for milliseconds, mostly still encrypted; its passphrase",
    (),
    calls="all: it starts programs, with no keyring left",
    locks_memory=True,
)


def row(role: Role) -> str:
    """The role's line in the table of contrib/SECURITY.md."""
    possesses = ", ".join(role.possesses) or "none"
    cells = (role.title, role.lives, possesses, role.calls, role.reads, role.keys)
    return f"| {' | '.join(cells)} |"


CHILDREN = (
    *(FRONT, LOAD, SEAL, REFUSE, SIGNERS, SIGN, LOOKOUT, BIND, ASK, DEVICE, TOKEN),
    *(OFFER, FETCH, RELAY, LEARN, CERTIFY, NOTIFY, SOURCE),
)
