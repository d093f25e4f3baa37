"""Whether a key may be used where a connection leads: restrict-destination-v00@openssh.com.

The constraint lists the hops that a key may take from one host to the next.  Every hop of the
connection has to be among them.  The answers are those of ssh-agent's identity_permitted and
process_sign_request2; `now` is always in seconds since 1970, for the certificates of hosts.
"""

from __future__ import annotations

from ..custody.identity import Identity
from ..protocol.algorithms import ALGORITHMS
from ..protocol.constraints import Hop, PermittedHop, RestrictDestination
from ..protocol.patterns import matches
from ..protocol.publickey import Certificate, PublicKey
from ..protocol.refusals import Cause
from ..protocol.userauth import Login, ToBeSigned
from ..protocol.wire import TEXT, Reader
from .sessions import NotPermitted, Sessions

# As for a constraint's users.  Matching takes time by the length, and this one any host may send.
_LONGEST_USER = 256


def check_visible(identity: Identity, sessions: Sessions, now: float) -> None:
    """Whether a key may be listed, removed or replaced on this connection.

    Raises NotPermitted.
    """
    hops = _permitted_hops(identity)
    if hops is None or not sessions.attempted:
        return
    _check_way(hops, sessions, None, now)
    last = sessions.bound[-1]
    # What may be used to log in there is not for that host to see; what may be used from there is.
    if last.forwarded and not _permits(hops, last.host, None, None, now):
        raise NotPermitted(
            Cause.OTHER_HOST, "the key may be used to get to this host, but not from it"
        )


def check_signature(
    identity: Identity, sessions: Sessions, signed: ToBeSigned | None, now: float
) -> None:
    """Whether a key may sign this on this connection.  Raises NotPermitted."""
    hops = _permitted_hops(identity)
    if hops is None:
        return
    if not sessions.attempted:
        raise NotPermitted(Cause.NO_HOST, "the key is for some hosts only, and ssh has named none")
    if not isinstance(signed, Login):
        raise NotPermitted(
            Cause.NO_LOGIN, "the key is for logins to some hosts only, and this is no login"
        )
    if len(signed.user) > _LONGEST_USER:
        raise NotPermitted(Cause.OTHER_HOST, "the user's name is too long")
    _check_way(hops, sessions, signed.user, now)
    sessions.check_login(signed)


def _permitted_hops(identity: Identity) -> tuple[PermittedHop, ...] | None:
    for constraint in identity.constraints:
        if isinstance(constraint, RestrictDestination):
            return constraint.hops
    return None


def _check_way(
    hops: tuple[PermittedHop, ...], sessions: Sessions, user: str | None, now: float
) -> None:
    """Every hop must be permitted; the user is known where something is to be signed."""
    if sessions.broken or not sessions.bound:
        raise NotPermitted(
            Cause.UNPROVEN, "an earlier attempt to bind this connection to a host failed"
        )
    if not all(session.provable for session in sessions.bound):
        raise NotPermitted(
            Cause.UNPROVEN,
            "a host on the way has a key that can't be checked, of an unknown type",
        )
    last = sessions.bound[-1]
    if last.forwarded and user is not None:
        raise NotPermitted(
            Cause.OTHER_HOST, "the connection is bound to a forwarding, not to a login"
        )
    origin = None
    for session in sessions.bound:
        if not _permits(hops, origin, session.host, user if session is last else None, now):
            before = _shown(origin) if origin else "this machine"
            name = "" if user is None else f" as {user!r}"
            raise NotPermitted(
                Cause.OTHER_HOST,
                f"the key is not for the hop from {before} to {_shown(session.host)}{name}",
            )
        origin = session.host


def _shown(host: PublicKey) -> str:
    return f"{host.kind} {host.fingerprint()}"


def _permits(
    hops: tuple[PermittedHop, ...],
    origin: PublicKey | None,
    target: PublicKey | None,
    user: str | None,
    now: float,
) -> bool:
    """`origin` is None for this machine, `target` for any host, `user` for any user."""
    for hop in hops:
        if origin is None:
            from_there = not hop.origin.hostname and not hop.origin.keys
        else:
            from_there = _is_key_of(origin, hop.origin, now)
        to_there = target is None or _is_key_of(target, hop.target, now)
        as_user = user is None or not hop.target.user or matches(user, hop.target.user)
        if from_there and to_there and as_user:
            return True
    return False


def _is_key_of(key: PublicKey, host: Hop, now: float) -> bool:
    certificate = key.certificate
    if certificate is None:
        return any(not known.is_authority and key.is_same(known.key) for known in host.keys)
    authority = certificate.authority_key
    trusted = any(known.is_authority and authority.is_same(known.key) for known in host.keys)
    return trusted and _is_for(certificate, host.hostname, now)


def _is_for(certificate: Certificate, hostname: str, now: float) -> bool:
    """sshkey_cert_check_host: that the authority has signed was verified when it was bound."""
    algorithm = ALGORITHMS.get(TEXT.read(Reader(certificate.signature)))
    return (
        certificate.is_of_host(now)
        and any(matches(hostname, principal) for principal in certificate.principals)
        and algorithm is not None
        and algorithm.certifies
    )
