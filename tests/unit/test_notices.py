"""What the user is told of signatures, and how often, by a clock that is moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kagent.custody.identity import Custody, Identity
from kagent.front.notices import Notices
from kagent.front.signature_log import Entry
from kagent.jobs.causes import Cause
from kagent.jobs.jobs import Answer, Done, Refused, Rule
from kagent.jobs.questions import Asker, Notice, Origin, Used
from kagent.protocol.publickey import PublicKey
from kagent.workers.notify import worded
from tests.support.certificates import KEY, plain

BLOB = plain(KEY)


@dataclass
class Front:
    """What is configured, and the worker that shows notices."""

    takes: float = 0.1
    answer: Answer | None = field(default_factory=Done)
    rules: tuple[Rule, ...] = ()
    notify: str = "always"
    looked: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    told: list[Notice] = field(default_factory=list)

    async def send_out(self, _: object, notice: Notice) -> Answer | None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await trio.sleep(self.takes)
        self.at_once -= 1
        self.told.append(notice)
        return self.answer

    async def offered(self, pid: int, *, forwarded: bool) -> None:
        self.looked = trio.current_time()


def entry(comment: str = "me", *, forwarded: bool = False) -> Entry:
    made = Entry(PublicKey.parse(BLOB), forwarded=forwarded)
    made.identity = Identity(BLOB, comment, Custody.SEALED)
    return made


def origin(*programs: str, hosts: tuple[str, ...] = ()) -> Origin:
    return Origin(Asker(7, programs), hosts)


def run(front: Any, uses: list[tuple[float, Entry, Origin | None]], seconds: float = 120) -> None:
    async def story() -> None:
        notices = Notices(front, front)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notices.tell)
            for pause, used, asked in uses:
                if pause:
                    await trio.sleep(pause)
                notices.used(used, asked)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    trio.run(story, clock=MockClock(autojump_threshold=0))


def test_one_at_once_and_the_rest_together() -> None:
    front = Front()
    git = origin("git", "bash", hosts=("github.com",))
    run(front, [(0, entry(), git)] + [(0.1, entry(), git)] * 12)
    first, second = front.told
    assert first.used == (Used(1, "me", ("git", "bash"), ("github.com",), False),)
    assert worded(first) == ("1 signature with me", "by git ← bash\nfor github.com")
    assert worded(second)[0] == "12 signatures with me"


def test_whatever_clients_do_it_is_bounded() -> None:
    """Thousands of signatures by hundreds of programs, for a worker that is slow."""
    front = Front(takes=10)
    uses = [(0.001, entry("c" * 5000), origin(str(one % 300) * 5000)) for one in range(3000)]
    run(front, uses)
    assert front.most_at_once == 1
    assert len(front.told) <= 3
    assert max(len(one.write()) for one in front.told) < 10_000
    total = sum(one.more + sum(used.count for used in one.used) for one in front.told)
    assert total == 3000


@pytest.mark.parametrize(
    ("general", "own", "forwarded", "told"),
    [
        ("never", "", True, False),
        ("always", "", False, True),
        ("forwarded", "", False, False),
        ("forwarded", "", True, True),
        ("always", "never", True, False),
        ("never", "always", False, True),
        ("always", "forwarded", False, False),
    ],
)
def test_who_is_told(general: str, own: str, forwarded: bool, told: bool) -> None:
    front = Front(notify=general, rules=(Rule(BLOB, notify=own),))
    run(front, [(0, entry(forwarded=forwarded), None)])
    assert bool(front.told) == told


def test_nobody_shows_them(capfd: pytest.CaptureFixture[str]) -> None:
    """It is said once, and not tried for each."""
    front = Front(answer=Refused(Cause.FAULT, "there is no session bus"))
    run(front, [(1, entry(), None)] * 100)
    assert len(front.told) <= 2
    assert capfd.readouterr().err.count("isn't told of signatures") == 1


def test_words_of_others_are_only_words() -> None:
    evil = "<a href='x'>\n1 with good by git\x1b[2J& ← →"
    used = (Used(3, evil, (evil, "b"), (evil,), True), Used(1, "me", (), (), False))
    heading, text = worded(Notice(used, 5))
    assert heading == "9 signatures"
    assert len(text.splitlines()) == 3
    assert not {*heading + text} & {"<", ">", "&", "\x1b"}
    assert text.splitlines()[1:] == ["1 with me", "and 5 more: see kagentctl log"]
    assert text.count("←") == 1
