"""When the command that prints a certificate runs, by a clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kagent.front import certificates
from kagent.front.certificates import Certificates
from kagent.front.peer import Refusal
from kagent.front.tally import Tally
from kagent.jobs.causes import Cause
from kagent.jobs.jobs import Answer, Certified, Refused, Rule
from kagent.protocol.messages import Shown
from kagent.protocol.publickey import PublicKey
from tests.support.certificates import GOOD, KEY, plain

BLOB = plain(KEY)
BEGINNING = 1_700_000_000


@dataclass
class Command:
    """What is configured, and the worker that runs it: as long as `takes`, for `life` seconds."""

    life: float = 600.0
    takes: float = 0.1
    fault: str = ""
    rules: tuple[Rule, ...] = (Rule(BLOB, "step", 60),)
    ran: list[float] = field(default_factory=list)

    async def send_out(self, *_: object) -> Answer | None:
        self.ran.append(trio.current_time())
        await trio.sleep(self.takes)
        if self.fault:
            return Refused(Cause.RENEWAL, self.fault)
        now = int(certificates.time.time())
        return Certified(
            replace(GOOD, valid_after=now - 300, valid_before=now + int(self.life)).blob
        )


@asynccontextmanager
async def listing(
    command: Any, tally: Tally | None = None
) -> AsyncIterator[tuple[Certificates, Callable[[], Any]]]:
    """The certificates, and what lists them for a client that isn't forwarded."""
    async with trio.open_nursery() as nursery:
        renewed = Certificates(command, command, tally or Tally(), nursery)
        shown = [Shown(BLOB, "me", "sealed", "", (), 0)]

        async def list_all() -> list[Shown]:
            await renewed.renew(one.blob for one in shown)
            return renewed.beside(shown)

        yield renewed, list_all
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def moved(monkeypatch: pytest.MonkeyPatch) -> None:
    class Time:
        """As the module, but for the time of day."""

        strftime = staticmethod(certificates.time.strftime)
        localtime = staticmethod(certificates.time.localtime)
        time = staticmethod(lambda: BEGINNING + trio.current_time())

    monkeypatch.setattr(certificates, "time", Time)


def run(story: Callable[[], Any]) -> None:
    trio.run(story, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize(("life", "most"), [(600, 3), (60, 27), (20, 81)])
def test_each_login_has_one_that_is_valid(life: int, most: int) -> None:
    """For thirteen minutes, and no more of them than that takes."""
    command = Command(life=life)

    async def story() -> None:
        async with listing(command) as (renewed, list_all):
            for _ in range(260):
                _, one = await list_all()
                certificate = PublicKey.parse(one.blob)
                renewed.check(certificate)
                assert one.expires > certificates.time.time()
                await trio.sleep(3)

    run(story)
    assert 1 < len(command.ran) <= most


def test_the_one_before_signs_to_its_end() -> None:
    async def story() -> None:
        async with listing(Command(life=100)) as (renewed, list_all):
            first = PublicKey.parse((await list_all())[1].blob)
            await trio.sleep(60)
            second = PublicKey.parse((await list_all())[1].blob)
            assert first != second
            assert renewed.find(first.blob) == first
            renewed.check(first)
            await trio.sleep(50)
            with pytest.raises(Refusal, match="time is over"):
                renewed.check(first)
            renewed.check(second)

    run(story)


def test_a_failure_keeps_the_old_one_and_is_no_loop() -> None:
    command, tally = Command(life=100), Tally()

    async def story() -> None:
        async with listing(command, tally) as (renewed, list_all):
            await list_all()
            await trio.sleep(60)
            command.fault = "no network"
            for _ in range(100):
                shown = await list_all()
                assert (len(shown) == 2) == (trio.current_time() < 100)
                assert shown[0].why == "no new certificate: no network"
                await trio.sleep(1)
            command.fault = ""
            await trio.sleep(60)
            assert [one.why[:19] for one in await list_all()] == ["", "certificate printed"]
            assert renewed.has_some

    run(story)
    assert len(command.ran) == 4
    [told] = tally.refusals.told(0).refusals
    assert (told.request, told.reason) == ("renewal", "no new certificate: no network")


def test_a_list_waits_some_seconds_for_one_that_hangs() -> None:
    """For all lists together; what comes then is there for the next."""
    command = Command(takes=20)

    async def story() -> None:
        async with listing(command) as (_, list_all):
            for at in (5, 5, 5):
                assert len(await list_all()) == 1
                assert trio.current_time() == pytest.approx(at)
            await trio.sleep(16)
            assert len(await list_all()) == 2

    run(story)
    assert len(command.ran) == 1


def test_what_is_configured_no_more_is_gone() -> None:
    command = Command()

    async def story() -> None:
        async with listing(command) as (renewed, list_all):
            key = PublicKey.parse((await list_all())[1].blob)
            command.rules = ()
            assert len(await list_all()) == 1
            assert renewed.find(key.blob) is None
            with pytest.raises(Refusal, match="removed"):
                renewed.check(key)

    run(story)
