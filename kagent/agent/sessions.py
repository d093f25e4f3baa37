"""Which hosts a connection leads to, and whether a key may be used there.

ssh tells with session-bind@openssh.com which host it has connected to; where the agent is
forwarded, each ssh on the way adds its own.  A destination constraint lists the hops that a key may
take.  The rules are ssh-agent's (PROTOCOL.agent, ssh-agent.c).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from hmac import compare_digest

from ..custody.identity import Identity
from ..protocol.constraints import Hop, RestrictDestination
from ..protocol.messages import SessionBind
from ..protocol.patterns import matches
from ..protocol.publickey import HOST, PublicKey
from ..protocol.userauth import Login, ToBeSigned

_MOST_SESSIONS = 16
_LONGEST_SESSION_ID = 128  # bytes


class NotPermitted(Exception):
    """A key may not be used on this connection, or a session not be bound to it; says why."""


@dataclass(frozen=True)
class _Session:
    host: PublicKey
    session_id: bytes
    forwarded: bool


@dataclass
class Sessions:
    """The sessions that a connection is bound to, in order: all but the last are forwarded."""

    bound: list[_Session] = field(default_factory=list)
    attempted: bool = False  # also by a bind that failed: then it is no local connection

    @property
    def forwarded(self) -> bool:
        """Whether requests come from another host."""
        return any(session.forwarded for session in self.bound)

    def bind(self, bind: SessionBind) -> None:
        """Record a session whose signature is good.  Raises NotPermitted, ProtocolError."""
        host = PublicKey.parse(bind.host_key)
        if len(bind.session_id) > _LONGEST_SESSION_ID:
            raise NotPermitted("the session id is too long")
        for session in self.bound:
            if not session.forwarded:
                raise NotPermitted("the connection is bound to a login already")
            if compare_digest(session.session_id, bind.session_id):
                if session.host.blob == host.blob:
                    return
                raise NotPermitted("the session is bound already, with another host key")
        if len(self.bound) >= _MOST_SESSIONS:
            raise NotPermitted("the connection is bound to too many sessions")
        self.bound.append(_Session(host, bind.session_id, bind.is_forwarding))

    def check_visible(self, identity: Identity) -> None:
        """Whether a key may be listed, removed or changed here.  Raises NotPermitted."""
        constraint = _destinations(identity)
        if constraint is not None and self.attempted:
            self._walk(constraint, None)
            last = self.bound[-1]
            # Not what may be used to log in to the last host, but what may be used from there.
            if last.forwarded and not _permits(constraint, last.host, None, None):
                raise NotPermitted("the key may be used to get to this host, but not from it")

    def check_signature(self, identity: Identity, signed: ToBeSigned | None) -> None:
        """Whether a key may sign this here.  Raises NotPermitted."""
        constraint = _destinations(identity)
        if constraint is None:
            return
        if not self.attempted:
            raise NotPermitted("the key is for some hosts only, and ssh has named none")
        if not isinstance(signed, Login):
            raise NotPermitted("the key is for logins to some hosts only, and this is no login")
        self._walk(constraint, signed.user)
        if not self._leads_to(signed):
            raise NotPermitted("the login is for another session than the connection is bound to")
        if len(self.bound) > 1 and signed.host_key is None:
            raise NotPermitted("a login from another host must name the host that it goes to")

    def destination(self, signed: ToBeSigned | None) -> list[_Session]:
        """The hosts that the request comes through and, if proved to be that of the login, the
        one that it goes to."""
        last = self.bound[-1] if self.bound else None
        if last is None or last.forwarded:
            return self.bound
        leads_there = isinstance(signed, Login) and self._leads_to(signed)
        return self.bound if leads_there else self.bound[:-1]

    def _leads_to(self, login: Login) -> bool:
        last = self.bound[-1]
        return compare_digest(login.session_id, last.session_id) and (
            login.host_key in (None, last.host.blob)
        )

    def _walk(self, constraint: RestrictDestination, user: str | None) -> None:
        """Every hop must be permitted; the user is known where something is to be signed."""
        if not self.bound:
            raise NotPermitted("an earlier attempt to bind this connection to a host failed")
        if user is not None and self.bound[-1].forwarded:
            raise NotPermitted("the connection is bound to a forwarding, not to a login")
        if not all(session.forwarded for session in self.bound[:-1]):
            raise NotPermitted("the connection was bound to a login before it was forwarded")
        origin = None
        for session in self.bound:
            last = session is self.bound[-1]
            if not _permits(constraint, origin, session.host, user if last else None):
                raise NotPermitted("the key is not for this host, or not for this way to it")
            origin = session.host


def _destinations(identity: Identity) -> RestrictDestination | None:
    return next((one for one in identity.constraints if isinstance(one, RestrictDestination)), None)


def _permits(
    constraint: RestrictDestination,
    origin: PublicKey | None,
    target: PublicKey | None,
    user: str | None,
) -> bool:
    """`origin` is None for this machine, `target` for any host, `user` for any user."""
    for hop in constraint.hops:
        if origin is None:
            from_there = not hop.origin.hostname and not hop.origin.keys
        else:
            from_there = _is_host(origin, hop.origin)
        to_there = target is None or _is_host(target, hop.target)
        as_user = user is None or not hop.target.user or matches(user, hop.target.user)
        if from_there and to_there and as_user:
            return True
    return False


def _is_host(key: PublicKey, hop: Hop) -> bool:
    certificate = key.certificate
    for known in hop.keys:
        if certificate is None:
            if not known.is_authority and known.blob == key.blob:
                return True
        elif known.is_authority and known.blob == certificate.authority:
            now = time.time()
            if (
                certificate.role == HOST
                and certificate.valid_after <= now < certificate.valid_before
                and hop.hostname in certificate.principals
                and not certificate.critical_options
            ):
                return True
    return False
