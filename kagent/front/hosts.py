"""The key that fits the host comes first: what is listed to ssh where it logs in.

ssh asks for a signature only with a key that the server has said it would take, and binds the
connection to the host's key before it lists.  So what has signed is what that host takes, and at
the next list it can come first.  That is for connections of ssh itself to a host: what comes
through a forwarded one, or from who binds nothing, has the order in which keys were loaded.

No host learns by the order of the others: its list depends on what itself was let in with.
"""

from __future__ import annotations

from functools import lru_cache

import trio

from .. import log
from ..jobs.jobs import Done, Kind, Refused
from ..jobs.questions import Host, Learn, Offering
from ..protocol.messages import Shown
from ..protocol.publickey import PublicKey
from ..protocol.userauth import Login, recognise
from ..protocol.wire import ProtocolError
from .channels import Workers
from .peer import Peer
from .sessions import NotPermitted
from .turns import Turns

_MOST_TO_LEARN = 16  # that wait; of more nothing is learned
_MOST_REMEMBERED = 1000  # keys' names
_MOST_LOOKS, _MOST_LOOKS_EACH = 16, 2  # at once: the lookout does one after the other


class Hosts:
    """Orders what is listed, and has logins noted."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._to_learn, self._waiting = trio.open_memory_channel[Learn](_MOST_TO_LEARN)
        self._looking = Turns(_MOST_LOOKS, _MOST_LOOKS_EACH)
        self._fault = ""

    async def offered(self, peer: Peer, shown: list[Shown]) -> list[Shown]:
        """What of that is listed to this client, in that order."""
        peer.offering = None
        session = peer.sessions.direct
        if session is None or not shown:
            return shown
        try:
            async with self._looking.of(peer.process.pid):
                answer = await self._workers.look_soon(Host(peer.process, session.host.blob))
        except OSError as error:
            log.error(f"which keys a host takes can't be told: {error}")
            return shown
        if not isinstance(answer, Offering):
            return shown
        peer.offering = answer
        return _arranged(shown, answer)

    def signed(self, peer: Peer, data: bytes, key: PublicKey) -> None:
        """A signature was given: if it is for a login to the host that was listed to, note it."""
        session, offering = peer.sessions.direct, peer.offering
        if not (session and offering and offering.learns):
            return
        signed = recognise(data, key, also_certified=True)
        if not isinstance(signed, Login):
            return
        try:
            peer.sessions.check_login(signed)
        except NotPermitted:
            return
        login = Learn(session.host.fingerprint(), key.fingerprint())
        if login.key not in offering.settled:
            try:
                self._to_learn.send_nowait(login)
            except trio.WouldBlock:
                log.debug("too many logins at once: not all are noted")

    async def learn(self) -> None:
        """Have them noted, one after the other; nobody waits for it."""
        async for login in self._waiting:
            try:
                answer = await self._workers.send_out(Kind.LEARN, login)
                fault = answer.reason if isinstance(answer, Refused) else "the learn worker died"
            except OSError as error:
                answer, fault = None, str(error)
            if isinstance(answer, Done):
                log.info(f"learned that the host with the key {login.host} takes {login.key}")
                fault = ""
            elif fault != self._fault:
                log.warning(f"which keys a host takes can't be learned: {fault}")
            self._fault = fault


def _arranged(shown: list[Shown], offering: Offering) -> list[Shown]:
    names = {one.blob: _name(one.blob) for one in shown}
    learned = set(offering.learned) & set(names.values())
    if len(learned) > 1:
        learned = set()  # which of them is meant this time, nobody knows

    def place(one: Shown) -> int:
        name = names[one.blob]
        return 0 if name in offering.first else 1 if name in learned else 2

    return sorted((one for one in shown if names[one.blob] not in offering.withheld), key=place)


@lru_cache(_MOST_REMEMBERED)
def _name(blob: bytes) -> str:
    """A key's fingerprint, also of one with a certificate; none if it is no key that is known."""
    try:
        return PublicKey.parse_any(blob).fingerprint()
    except ProtocolError:
        return ""
