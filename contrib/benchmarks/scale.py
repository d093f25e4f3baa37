"""Much of it: keys, clients, signatures."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from kagent.learned import MOST
from kagent.protocol.messages import (
    SESSION_BIND,
    Extension,
    RequestIdentities,
    SessionBind,
    Type,
    encode,
)
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import STRING, TEXT
from tests.support.programs import Agent

from .figures import Goal, Row, Series
from .running import (
    Bench,
    Client,
    NotHere,
    below,
    many_clients,
    milliseconds,
    name_of,
    one_client,
    repeat,
    sign_request,
)
from .signatures import FEW, SEALED

_KEYS = (1, 20, 150, 500)
_GOAL_UP_TO = 150
_LISTINGS = 20
_OFFERED = 20  # keys
_AT_ONCE = 50  # keys that one ssh-add adds: it has a minute, however busy the machine is
_CLIENTS = 2000
_SPARE = 200  # descriptors beyond those clients, here and in the front
_SIGNATURES = 100_000
_SETTLED = 1.0  # seconds
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LIST = encode(RequestIdentities())


def listing(name: str, bench: Bench) -> Iterator[Row]:
    """All keys listed, over the number of keys: by a command, and by a client that does no more."""
    with bench.holding("kagent") as kagent, bench.holding("ssh-agent") as openssh:
        held = 0
        for number in _KEYS:
            keys = [bench.person.key(f"listed-{one}") for one in range(held, number)]
            held = number
            for at in range(0, len(keys), _AT_ONCE):
                for agent in (kagent, openssh):
                    agent.run("ssh-add", "-q", *keys[at : at + _AT_ONCE])
            for how, measure, least in (("ssh-add -l", _command, 1), ("the answer", _answer, 150)):
                yield bench.pair(
                    name,
                    f"{number} key{'s' if number > 1 else ''}, {how}",
                    "ms",
                    ("kagent", partial(measure, kagent)),
                    ("ssh-agent", partial(measure, openssh)),
                    Goal(4) if least <= number <= _GOAL_UP_TO else None,
                )


def _command(agent: Agent) -> float:
    return milliseconds(lambda: agent.run("ssh-add", "-l"))


def _answer(agent: Agent) -> float:
    def once() -> None:
        with Client(agent.socket) as client:
            client.ask(_LIST, Type.IDENTITIES_ANSWER)

    return milliseconds(lambda: repeat(once, _LISTINGS)) / _LISTINGS


def listing_to_host(name: str, bench: Bench) -> Iterator[Row]:
    """What ssh waits for before it offers a key: the host bound, and the keys listed.

    Of 20 keys, one has logged in there; a row for each of what else there may be to look at.
    """
    keys = [bench.person.key(f"offered-{one}") for one in range(_OFFERED)]
    host = ed25519.Ed25519PrivateKey.generate()
    with (
        bench.holding("kagent", *keys) as kagent,
        bench.holding("ssh-agent", *keys) as openssh,
    ):
        for what, prepare in (
            ("nothing learned", lambda: None),
            (f"{MOST} logins learned", lambda: _have_learned(bench, host, keys[-1])),
            ("and hosts configured", lambda: _have_configured(bench, host, keys[-2])),
        ):
            prepare()
            time.sleep(_SETTLED)
            yield bench.pair(
                name,
                f"{_OFFERED} keys, {what}",
                "ms",
                ("kagent", partial(_bound_answer, kagent, host)),
                ("ssh-agent", partial(_bound_answer, openssh, host)),
                Goal(6),
            )


def _bound_answer(agent: Agent, host: ed25519.Ed25519PrivateKey) -> float:
    """Of a connection each, as ssh makes."""
    session = os.urandom(32)
    signature = TEXT.write("ssh-ed25519") + STRING.write(host.sign(session))
    contents = SessionBind(_blob(host), session, signature, False).write()
    bind = encode(Extension(SESSION_BIND, contents))

    def once() -> None:
        with Client(agent.socket) as client:
            client.ask(bind, Type.SUCCESS)
            client.ask(_LIST, Type.IDENTITIES_ANSWER)

    return milliseconds(lambda: repeat(once, _LISTINGS)) / _LISTINGS


def _blob(key: ed25519.Ed25519PrivateKey) -> bytes:
    return TEXT.write("ssh-ed25519") + STRING.write(key.public_key().public_bytes_raw())


def _have_learned(bench: Bench, host: ed25519.Ed25519PrivateKey, key: Path) -> None:
    path = bench.person.home / ".local/state/kagent/hosts"
    path.parent.mkdir(parents=True)
    others = [f"SHA256:{number:043} SHA256:{'A' * 43} 2026-01-01" for number in range(MOST - 1)]
    names = PublicKey.parse(_blob(host)).fingerprint(), _public(key).fingerprint()
    path.write_text("\n".join([*others, f"{' '.join(names)} 2026-01-01", ""]))
    path.chmod(0o600)


def _have_configured(bench: Bench, host: ed25519.Ed25519PrivateKey, key: Path) -> None:
    folder = bench.person.home / ".config/kagent"
    folder.mkdir(parents=True)
    entry = f'[[identity]]\npublic = "{key}.pub"\nhosts = ["host1", "*.example.org"]\n'
    (folder / "kagent.toml").write_text(entry)
    ssh = bench.person.home / ".ssh"
    ssh.mkdir()
    line = PublicKey.parse(_blob(host)).line()
    (ssh / "known_hosts").write_text("".join(f"host{number} {line}\n" for number in range(200)))


def _public(key: Path) -> PublicKey:
    return parse_line(Path(f"{key}.pub").read_text())[0]


def idle_clients(name: str, bench: Bench) -> Iterator[Row]:
    """Clients that have asked for a listing and stay: what each costs, and others beside them."""
    kind = SEALED["ed25519"]
    key = kind.key(bench.person)
    frame = sign_request(key)
    options = ("--custody=sealed",)
    with (
        _descriptors(_CLIENTS + _SPARE),
        bench.holding("kagent", key, options=options) as busy,
        bench.holding("kagent", key, options=options) as quiet,
    ):
        for agent in (busy, quiet):  # so that there is all that the first requests bring
            many_clients(agent.socket, frame, FEW, 10)
        before = _resident(busy.front)
        with ExitStack() as connected:
            for _ in range(_CLIENTS):
                client = connected.enter_context(Client(busy.socket))
                client.ask(_LIST, Type.IDENTITIES_ANSWER)
            each = (_resident(busy.front) - before) * 1024 / _CLIENTS
            what = f"{_CLIENTS:,} idle clients"
            yield Row(name, what, "KB", Series("each in kagent's front", (each,)), goal=Goal(4))
            yield bench.pair(
                name,
                "one client, Ed25519",
                "ms",
                (f"beside {what}", lambda: one_client(busy.socket, frame, kind.count)),
                ("alone", lambda: one_client(quiet.socket, frame, kind.count)),
                Goal(1.1),
            )


def growth(name: str, bench: Bench) -> Iterator[Row]:
    """What all processes have more than before, after very many signatures."""
    key = SEALED["ed25519"].key(bench.person)
    frame = sign_request(key)
    with bench.holding("kagent", key, options=("--custody=sealed",)) as kagent:
        sizes, descriptors = [], []
        for signatures in (_SIGNATURES // 20, _SIGNATURES):
            many_clients(kagent.socket, frame, FEW, signatures // FEW)
            time.sleep(_SETTLED)
            pids = [pid for pid in below(kagent.process.pid) if _stays(pid)]
            sizes.append(sum(map(_resident, pids)))
            descriptors.append(sum(map(_open_descriptors, pids)) if os.getuid() == 0 else 0)
    what = f"{_SIGNATURES:,} signatures"
    grown = Series("kagent's memory grows by", (sizes[1] - sizes[0],))
    yield Row(name, what, "MB", grown, goal=Goal(1))
    if os.getuid() == 0:
        more = Series("its descriptors by", (float(descriptors[1] - descriptors[0]),))
        yield Row(name, what, "", more, goal=Goal(0))


def _stays(pid: int) -> bool:
    """Whether a process stays: sign workers come and go, and wait as they were forked."""
    return name_of(pid) != "kagent-sign"


@contextmanager
def _descriptors(number: int) -> Iterator[None]:
    """So many for this process, and what it starts.  Raises NotHere."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < number:
        raise NotHere(f"a process may have {hard} descriptors here, and it takes {number}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _resident(pid: int) -> float:
    """A process's pages, in MB: what everybody may know of it."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20


def _open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
