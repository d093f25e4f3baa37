"""Certificates that a command of the user's prints for keys, renewed before they are missed.

What is kept here is public: a certificate names a key, and is signed for with that key, wherever it
is held, and under all that it is held under.  There is no second private key.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import trio

from .. import log
from ..jobs.causes import Cause
from ..jobs.jobs import Certified, Kind, Refused, Rule
from ..jobs.questions import Certify
from ..protocol.messages import MAX_PAYLOAD, PRINTED, RENEWAL, Shown
from ..protocol.publickey import USER, Certificate, PublicKey
from ..protocol.wire import ProtocolError
from ..text import quoted
from .channels import Workers
from .configured import Fetching
from .peer import Refusal
from .tally import Tally

# That a list of keys waits for a certificate, from when its command was started.
_SECONDS_TO_WAIT = 5.0
# After a command that has failed, until it is run again.
_PAUSE = 60.0
_MOST_COMMANDS = 4  # at once

_FOREVER = 2**64 - 1
_ROOM_FOR_HEADERS = 64  # bytes


class _Renewal:
    """What has become of the certificates for one key.

    The last certificate is the one that is listed.  The one before it signs as long as it is valid,
    for who was told of it a moment ago.
    """

    def __init__(self) -> None:
        self.certificates: list[PublicKey] = []
        self.came = 0.0  # when the last one did, as time.time()
        self.not_before = -math.inf  # of trio's clock: when the command may run again
        self.fault = ""  # of the last time, in words
        self.under_way: trio.Event | None = None
        self.started = 0.0  # of trio's clock

    def current(self, now: float) -> PublicKey | None:
        """The last one, if it is valid."""
        last = self.certificates[-1:]
        return last[0] if last and _is_valid(last[0], now) else None

    def is_due(self, renew_before: int) -> bool:
        """Whether the command is to run now."""
        if self.under_way is not None or trio.current_time() < self.not_before:
            return False
        now = time.time()
        current = self.current(now)
        if current is None:
            return True
        end = _of(current).valid_before
        # Not at each list, where certificates live for less than `renew_before`.
        return end - now <= renew_before and now - self.came >= (end - self.came) / 2


class Certificates:
    """Has them printed, and knows for which keys they are."""

    def __init__(
        self, workers: Workers, fetching: Fetching, tally: Tally, nursery: trio.Nursery
    ) -> None:
        """Commands run on in `nursery` when nobody waits for them any more."""
        self._workers = workers
        self._fetching = fetching
        self._tally = tally
        self._nursery = nursery
        self._renewals: dict[bytes, _Renewal] = {}  # by the plain blob
        self._running = trio.CapacityLimiter(_MOST_COMMANDS)

    async def renew(self, blobs: Iterable[bytes]) -> bool:
        """Have those certificates renewed for which it is time, of the plain keys `blobs`.

        Waits for it some seconds at most, and gives whether it has waited at all.
        """
        waited_for = []
        rules = self._rules()
        for blob in {*blobs} & rules.keys():
            renewal = self._renewals.setdefault(blob, _Renewal())
            if renewal.is_due(rules[blob].renew_before):
                renewal.under_way = trio.Event()
                renewal.started = trio.current_time()
                self._nursery.start_soon(self._renew, blob, renewal, renewal.under_way)
            if renewal.under_way is not None:
                waited_for.append((renewal.under_way, renewal.started + _SECONDS_TO_WAIT))
        waits = False
        for event, until in waited_for:
            with trio.move_on_at(until):
                waits = True
                await event.wait()
        return waits

    async def _renew(self, blob: bytes, renewal: _Renewal, done: trio.Event) -> None:
        try:
            async with self._running:
                answer = await self._workers.send_out(Kind.CERTIFY, Certify(blob))
            if isinstance(answer, Certified):
                self._take(blob, renewal, answer.blob)
            else:
                died = "the certificate worker died"
                self._fail(blob, renewal, answer.reason if isinstance(answer, Refused) else died)
        except (OSError, ProtocolError) as error:
            self._fail(blob, renewal, str(error))
        except Exception as error:
            # A fault of ours is not to end the front.
            self._fail(blob, renewal, f"{type(error).__name__}: {error}")
        finally:
            renewal.under_way = None
            done.set()

    def _take(self, blob: bytes, renewal: _Renewal, certificate: bytes) -> None:
        """Raises ProtocolError: that its worker says so proves nothing."""
        key = PublicKey.parse(certificate)
        if not key.certificate or key.certificate.role != USER or key.plain_blob != blob:
            raise ProtocolError("no certificate for this key")
        renewal.certificates = [*renewal.certificates[-1:], key]
        renewal.came, renewal.fault = time.time(), ""
        name = quoted(key.certificate.key_id)
        log.info(f"certificate {name} for {key.fingerprint()}, {_validity(key.certificate)}")

    def _fail(self, blob: bytes, renewal: _Renewal, fault: str) -> None:
        renewal.not_before = trio.current_time() + _PAUSE
        fingerprint = PublicKey.parse(blob).fingerprint()
        if fault != renewal.fault:  # else each login would say so
            log.warning(f"no new certificate for {fingerprint}: {fault}")
        self._tally.refusals.add(
            Cause.RENEWAL,
            f"no new certificate: {fault}",
            request=RENEWAL,
            origin=None,
            fingerprint=fingerprint,
        )
        renewal.fault = fault

    def beside(self, shown: list[Shown]) -> list[Shown]:
        """These keys, and after each the certificate that is valid for it, as ssh-add has them.

        As far as they have room in an answer.  One that is loaded stands there already.
        """
        if not self._renewals:
            return shown
        rules, now = self._rules(), time.time()
        room = MAX_PAYLOAD - _ROOM_FOR_HEADERS - sum(len(one.write()) for one in shown)
        listed = {one.blob for one in shown}
        made: list[Shown] = []
        for one in shown:
            renewal, rule = self._renewals.get(one.blob), rules.get(one.blob)
            if not (renewal and rule):
                made.append(one)
                continue
            made.append(_with_fault(one, renewal.fault))
            if (key := renewal.current(now)) and key.blob not in listed:
                certificate = _shown(key, one, rule)
                room -= len(certificate.write())
                if room >= 0:
                    made.append(certificate)
        return made

    def find(self, blob: bytes) -> PublicKey | None:
        """The certificate of that blob, valid or not any more."""
        return next(
            (
                one
                for plain in self._rules()
                if (renewal := self._renewals.get(plain))
                for one in renewal.certificates
                if one.blob == blob
            ),
            None,
        )

    def check(self, certificate: PublicKey) -> None:
        """Whether it may be used now.  Raises Refusal."""
        if self.find(certificate.blob) is None:
            raise Refusal(Cause.RENEWAL, "the certificate was removed meanwhile")
        if not _is_valid(certificate, time.time()):
            raise Refusal(Cause.RENEWAL, "the certificate's time is over")

    def forget(self, blob: bytes | None = None) -> None:
        """What there is for that plain key, or for all: it is printed anew when it is needed."""
        for plain, renewal in list(self._renewals.items()):
            if blob in (None, plain) and renewal.under_way is None:
                del self._renewals[plain]

    @property
    def has_some(self) -> bool:
        """Whether one would be lost with this agent."""
        now = time.time()
        return any(one.current(now) for one in self._renewals.values())

    def _rules(self) -> dict[bytes, Rule]:
        """As they were at the last list of keys, of anybody."""
        # Of two for a key, the first counts.
        return {one.blob: one for one in reversed(self._fetching.rules) if one.program}


def _of(key: PublicKey) -> Certificate:
    assert key.certificate
    return key.certificate


def _is_valid(key: PublicKey, now: float) -> bool:
    return _of(key).valid_after <= now < _of(key).valid_before


def _validity(certificate: Certificate) -> str:
    if certificate.valid_before == _FOREVER:
        return "valid forever"
    try:
        end = time.localtime(certificate.valid_before)
    except (OverflowError, OSError, ValueError):  # no such year
        return "valid for longer than can be told"
    return f"valid until {time.strftime('%Y-%m-%d %H:%M:%S %z', end)}"


def _shown(key: PublicKey, plain: Shown, rule: Rule) -> Shown:
    end = _of(key).valid_before
    ends = [one for one in (plain.expires, 0 if end == _FOREVER else end) if one]
    why = f"{PRINTED}{rule.program}, {_validity(_of(key))}"
    return plain.replace(blob=key.blob, why=why, expires=min(ends, default=0))


def _with_fault(plain: Shown, fault: str) -> Shown:
    if not fault:
        return plain
    told = f"no new certificate: {fault}"
    return plain.replace(why=f"{plain.why}; {told}" if plain.why else told)
