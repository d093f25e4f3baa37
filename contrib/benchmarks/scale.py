"""Much of it: keys, clients, signatures."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from kagent.protocol.messages import RequestIdentities, Type, encode
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
