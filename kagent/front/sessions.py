"""The ssh sessions that a connection is bound to: session-bind@openssh.com, PROTOCOL.agent.

ssh binds each of its connections to the session that it logs in for, or that it forwards the agent
for.  Through a forwarded agent, each ssh on the way adds its own: so the sessions are the way that
requests take from this machine, and the last of them is where they come from or lead to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..protocol.messages import SessionBind
from ..protocol.publickey import PublicKey
from ..protocol.refusals import Cause, Explained
from ..protocol.userauth import Login, ToBeSigned

# OpenSSH: AGENT_MAX_SESSION_IDS, AGENT_MAX_SID_LEN.
_MOST_SESSIONS = 16
_LONGEST_SESSION_ID = 128  # bytes


class NotPermitted(Explained):
    """A session can't be bound to this connection, or a key not be used on it; says why."""


class Session(NamedTuple):
    """An ssh session with `host`, which may use the connection itself if it is `forwarded`."""

    host: PublicKey
    session_id: bytes
    forwarded: bool

    @property
    def provable(self) -> bool:
        """Whether its host can prove itself to kagent, which knows not all types of keys."""
        certificate = self.host.certificate
        return self.host.known and (certificate is None or certificate.authority_key.known)

    @property
    def proved_blob(self) -> bytes:
        """The host's plain key; nothing if it couldn't prove that it has it."""
        return self.host.plain_blob if self.provable else b""


class Sessions:
    """The sessions of a connection, in order.  Each host in it has proved itself, if it can."""

    __slots__ = ("attempted", "bound", "broken")

    def __init__(self) -> None:
        # All but the last are forwarded.
        self.bound: list[Session] = []
        # Once true, always true: no local connection any more, even if nothing came of it.
        self.attempted = False
        # Whether a host didn't prove itself.  ssh has let it use the connection all the same, so
        # whatever is bound after it is not where it seems to be.  ssh-agent forgets about it when
        # another session is bound; but it verifies as ssh does, with the same code, so that there a
        # host that ssh believes can't fail.
        self.broken = False

    @property
    def forwarded(self) -> bool:
        """Whether requests come from another host, or may do so."""
        return self.broken or any(session.forwarded for session in self.bound)

    @property
    def direct(self) -> Session | None:
        """The one session that the connection is for: a login from here to a host that has proved
        itself.  None if there is another, or the host may use the connection."""
        if len(self.bound) != 1 or self.forwarded:
            return None
        [session] = self.bound
        return session if session.provable else None

    async def bind(self, contents: bytes, verify: Callable[[SessionBind], Awaitable[None]]) -> None:
        """Take in a session, by the contents of the extension.

        `verify` checks the host's signature, and raises if it is not good.  Raises that,
        NotPermitted or ProtocolError.
        """
        self.attempted = True
        with self._broken_by_failure():
            bind = SessionBind.parse(contents)
            host = PublicKey.parse_any(bind.host_key)
            session = Session(host, bind.session_id, bind.is_forwarding)
            if len(session.session_id) > _LONGEST_SESSION_ID:
                raise NotPermitted(Cause.BINDING, "the session id is too long")
            provable = session.provable
        known = self._knows(session)
        if provable:
            with self._broken_by_failure():
                await verify(bind)
        if not known:
            self.bound.append(session)
        if not provable:
            # It stays in the way that requests take, as a host that no key is for.
            raise NotPermitted(
                Cause.BINDING,
                f"a host's key or authority is of an unknown type: {host.type[:64]}",
            )

    @contextmanager
    def _broken_by_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.broken = True
            raise

    def _knows(self, new: Session) -> bool:
        """Whether the session is bound already.  Raises NotPermitted where it can't be."""
        for session in self.bound:
            if not session.forwarded:
                raise NotPermitted(Cause.BINDING, "the connection is bound to a login already")
            if session.session_id == new.session_id:
                if session.host.is_same(new.host):
                    return True
                raise NotPermitted(
                    Cause.BINDING, "the session is bound already, with another host key"
                )
        if len(self.bound) >= _MOST_SESSIONS:
            raise NotPermitted(Cause.BINDING, "the connection is bound to too many sessions")
        return False

    def check_login(self, login: Login) -> None:
        """Check that a login goes where the connection leads.  Raises NotPermitted."""
        if not self.bound or login.session_id != self.bound[-1].session_id:
            raise NotPermitted(
                Cause.OTHER_HOST,
                "the login is for another session than the connection is bound to",
            )
        if login.host_key is None:
            # A host can sign the id of any session, also of one with another host.  Here ssh sees
            # to it that it is its own; on other hosts the server has to, by the key in the login.
            if len(self.bound) > 1 or self.broken:
                raise NotPermitted(
                    Cause.NO_HOST, "a login from another host must name the host that it goes to"
                )
        elif not login.host_key.is_same(self.bound[-1].host):
            raise NotPermitted(
                Cause.OTHER_HOST, "the login is to another host than the connection is bound to"
            )

    def way(self, signed: ToBeSigned | None) -> list[Session]:
        """The sessions that a request comes through, and the one that it is for if that is sure:
        only then is the last not forwarded."""
        if not self.bound or self.bound[-1].forwarded:
            return self.bound
        try:
            if isinstance(signed, Login):
                self.check_login(signed)
                return self.bound
        except NotPermitted:
            pass
        return self.bound[:-1]
