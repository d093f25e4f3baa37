"""Scripts: frames, each with what has to come of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from kagent.protocol.constraints import (
    Constraint,
    Hop,
    HostKey,
    Lifetime,
    PermittedHop,
    RestrictDestination,
)
from kagent.protocol.messages import SESSION_BIND, AddIdConstrained, Extension, encode
from kagent.protocol.publickey import USER, PublicKey
from kagent.protocol.wire import STRING, TEXT, Reader

from .agents import DONE, REFUSED, SIGNED, Answering, Outcome, outcome
from .keys import (
    AUTHORITY,
    CERTIFIED,
    FOREVER,
    SECOND,
    STRANGER,
    USERS_KEY,
    A,
    B,
    C,
    D,
    Key,
    hop,
    new,
)
from .proofs import PROOFS, RSA
from .requests import (
    LIST,
    PLAIN,
    REMOVE_ALL,
    SSHSIG,
    add,
    bind,
    forward,
    login,
    remove,
    session_of,
    sign,
)

Script: TypeAlias = list[tuple[bytes, Outcome]]
HERE_TO_A = hop(A)
LISTED: tuple[bytes, Outcome] = (LIST, ("key",))
HIDDEN: tuple[bytes, Outcome] = (LIST, ())


def play(agent: Answering, script: Script) -> None:
    """All frames on one connection, with no keys to begin with."""
    agent.ask(1, REMOVE_ALL)
    for number, (frame, expected) in enumerate(script):
        assert outcome(agent.ask(0, frame)) == expected, f"step {number} of the script"


def _bound(*steps: tuple[bytes, Outcome], hops: tuple[PermittedHop, ...] = (HERE_TO_A,)) -> Script:
    return [(add(*hops), DONE), *steps]


def _way(*hosts: Key) -> Script:
    """The connection is forwarded through all but the last host, which is logged in to."""
    *before, last = hosts
    return [*((forward(host), DONE) for host in before), (bind(last), DONE)]


def _signs(*data: bytes) -> Script:
    return [(sign(one), SIGNED) for one in data]


def _refuses(*data: bytes) -> Script:
    return [(sign(one), REFUSED) for one in data]


_NO_KEY = PublicKey(b"none", "", "", {}, None)
_A_TO_B, _B_TO_C = hop(B, origin=A), hop(C, origin=B)
_TO_CERTIFIED = hop(D, by=AUTHORITY)
_LONG_WAY = [new(f"host{number}") for number in range(17)]
_ANY_WAY = [
    hop(target, origin=origin)
    for origin, target in zip([None, *_LONG_WAY[:-1]], _LONG_WAY, strict=True)
]


def _to_certificate(host: Key, *, accepted: bool, hops: tuple[PermittedHop, ...]) -> Script:
    used = [LISTED, *_signs(login(host))] if accepted else [HIDDEN, *_refuses(login(host))]
    return _bound(*_way(host), *used, hops=hops)


def _user(pattern: str, user: str, expected: Outcome) -> Script:
    return _bound(
        (bind(A), DONE), LISTED, (sign(login(A, user=user)), expected), hops=(hop(A, user=pattern),)
    )


def _add_with(*constraints: Constraint) -> tuple[bytes, Outcome]:
    return encode(AddIdConstrained(USERS_KEY.named(), USERS_KEY.name, constraints)), DONE


def _zeros_in_front(key: Key) -> Key:
    """An RSA key's blob with a longer, though not larger, modulus."""
    reader = Reader(key.blob)
    kind, exponent, modulus = (STRING.read(reader) for _ in range(3))
    return replace(key, blob=b"".join(map(STRING.write, (kind, exponent, b"\0\0" + modulus))))


SCRIPTS: dict[str, Script] = {
    "no session": _bound(
        LISTED, *_refuses(login(A), SSHSIG, b"data"), (remove(), DONE), HIDDEN, (remove(), REFUSED)
    ),
    "a login to the host": _bound(
        *_way(A),
        LISTED,
        *_signs(login(A), login(A, method=PLAIN), login(A, user="")),
        (remove(), DONE),
    ),
    "what is no login to it": _bound(
        *_way(A),
        *_refuses(
            SSHSIG,
            b"",
            b"data",
            login(A, number=1),
            login(A, number=1, method=PLAIN),
            login(B),
            login(A, to=B),
            login(A, session=b""),
            login(A, message=51),
            login(A, service="ssh-userauth"),
            login(A, method="password"),
            login(A, with_signature=0),
            login(A, with_signature=2),
            login(A, algorithm="ssh-rsa"),
            login(A, algorithm="ssh-ed25519-cert-v01@openssh.com"),
            login(A, key=SECOND),
            login(A, more=b"\0"),
            login(A, method=PLAIN, more=STRING.write(A.blob)),
            login(A, to=replace(A, blob=b"none")),
            login(A)[:-1],
        ),
        *_signs(login(A)),
    ),
    "another host": _bound(
        *_way(B), HIDDEN, *_refuses(login(B), login(A)), (remove(), REFUSED), (add(), REFUSED)
    ),
    "no hop from here": _bound(*_way(B), HIDDEN, *_refuses(login(B)), hops=(_A_TO_B,)),
    "a key for everywhere": [
        (add(), DONE),
        *_signs(login(B), SSHSIG, b"data"),
        *_way(A, B),
        LISTED,
        *_signs(login(B), login(A), SSHSIG, b"data"),
        (bind(C), REFUSED),
        LISTED,
        (add(HERE_TO_A), DONE),
        HIDDEN,
        (remove(), REFUSED),
    ],
    "another constraint only": [
        _add_with(Lifetime(1000)),
        *_way(B),
        LISTED,
        *_signs(login(B), SSHSIG),
    ],
    "another constraint too": [
        _add_with(Lifetime(1000), RestrictDestination((HERE_TO_A,))),
        *_way(B),
        HIDDEN,
        *_refuses(login(B)),
    ],
    "any user": _user("", "root", SIGNED),
    "the user": _user("root", "root", SIGNED),
    "another user": _user("root", "alice", REFUSED),
    "a user's beginning": _user("root", "roots", REFUSED),
    "a user in capitals": _user("root", "Root", REFUSED),
    "a user by a star": _user("r*t", "root", SIGNED),
    "no user for a star": _user("*", "", SIGNED),
    "a user by two stars": _user("*o*o", "root", REFUSED),
    "a user by question marks": _user("?oo?", "root", SIGNED),
    "a user too short for question marks": _user("?oot?", "root", REFUSED),
    "a user of two bytes a letter": _user("m?ller", "müller", REFUSED),
    "a user of two bytes for two question marks": _user("m??ller", "müller", SIGNED),
    "a list is no pattern": _user("root,alice", "root", REFUSED),
    "brackets are no pattern": _user("[r]oot", "root", REFUSED),
    "an exclamation mark is no pattern": _user("!alice", "root", REFUSED),
    "forwarded to where it may be used, not from there": _bound(
        (forward(A), DONE), HIDDEN, *_refuses(login(A)), (remove(), REFUSED), (add(), REFUSED)
    ),
    "forwarded to where it may be used from": _bound(
        (forward(A), DONE), LISTED, *_refuses(login(A)), (remove(), DONE), hops=(HERE_TO_A, _A_TO_B)
    ),
    "from the first host to the second": _bound(
        *_way(A, B),
        LISTED,
        *_signs(login(B)),
        *_refuses(login(B, method=PLAIN), login(A), login(B, to=A), login(B, number=1)),
        (remove(), DONE),
        hops=(_A_TO_B, HERE_TO_A),
    ),
    "the first hop is missing": _bound(*_way(A, B), HIDDEN, *_refuses(login(B)), hops=(_A_TO_B,)),
    "the second hop is missing": _bound(
        *_way(A, B), HIDDEN, *_refuses(login(B)), hops=(HERE_TO_A, _B_TO_C, hop(B))
    ),
    "three hosts": _bound(
        *_way(A, B, C),
        LISTED,
        *_signs(login(C)),
        *_refuses(login(B), login(C, method=PLAIN)),
        hops=(HERE_TO_A, _A_TO_B, _B_TO_C),
    ),
    "three hosts, the one between not permitted": _bound(
        *_way(A, B, C), HIDDEN, *_refuses(login(C)), hops=(HERE_TO_A, hop(C, origin=A), _B_TO_C)
    ),
    "three hosts, to the last but not from it": _bound(
        (forward(A), DONE),
        LISTED,
        (forward(B), DONE),
        LISTED,
        (forward(C), DONE),
        HIDDEN,
        hops=(HERE_TO_A, _A_TO_B, _B_TO_C),
    ),
    "only the last hop's user is known": _bound(
        *_way(A, B),
        *_signs(login(B, user="alice")),
        *_refuses(login(B, user="bob")),
        hops=(hop(A, user="root"), hop(B, origin=A, user="alice")),
    ),
    "there and back": _bound(
        (forward(A), DONE),
        (forward(B), DONE),
        (bind(A, 1), DONE),
        *_signs(login(A, 1)),
        *_refuses(login(A)),
        hops=(HERE_TO_A, _A_TO_B, hop(A, origin=B)),
    ),
    "another session with the same host": _bound(
        (forward(A), DONE),
        (bind(A, 1), DONE),
        LISTED,
        *_signs(login(A, 1)),
        hops=(HERE_TO_A, hop(A, origin=A)),
    ),
    "the same session again": _bound(
        (forward(A), DONE),
        (forward(A), DONE),
        (bind(A), DONE),
        *_refuses(login(A)),
        *_way(B),
        *_signs(login(B)),
        (forward(A), DONE),
        (bind(B), REFUSED),
        *_signs(login(B)),
        hops=(HERE_TO_A, _A_TO_B),
    ),
    "the same session with another host": _bound(
        (forward(A), DONE),
        (bind(B, session=session_of(A)), REFUSED),
        LISTED,
        *_way(B),
        *_signs(login(B)),
        hops=(HERE_TO_A, _A_TO_B),
    ),
    "nothing comes after a login": _bound(
        *_way(A),
        (bind(A), REFUSED),
        (bind(A, 1), REFUSED),
        (forward(B), REFUSED),
        (bind(B, signature=b""), REFUSED),
        LISTED,
        *_signs(login(A)),
    ),
    "sixteen sessions": _bound(
        *((forward(host), DONE) for host in _LONG_WAY[:15]),
        (bind(_LONG_WAY[15]), DONE),
        *_signs(login(_LONG_WAY[15])),
        hops=tuple(_ANY_WAY),
    ),
    "seventeen sessions": _bound(
        *((forward(host), DONE) for host in _LONG_WAY[:16]),
        (forward(_LONG_WAY[3]), DONE),
        (bind(_LONG_WAY[16]), REFUSED),
        LISTED,
        *_refuses(login(_LONG_WAY[16])),
        hops=tuple(_ANY_WAY),
    ),
    "a long session id": _bound(
        (bind(A, session=bytes(128)), DONE), *_signs(login(A, session=bytes(128)))
    ),
    "no session id": _bound((bind(A, session=b""), DONE), LISTED, *_refuses(login(A, session=b""))),
    "an authority's host": _to_certificate(CERTIFIED, accepted=True, hops=(_TO_CERTIFIED,)),
    "an authority's host by its key": _to_certificate(CERTIFIED, accepted=False, hops=(hop(D),)),
    "an authority's host by its certificate": _to_certificate(
        CERTIFIED, accepted=False, hops=(hop(CERTIFIED), hop(CERTIFIED, by=CERTIFIED))
    ),
    "an authority that is listed as a host": _to_certificate(
        CERTIFIED,
        accepted=False,
        hops=(PermittedHop(Hop("", ""), Hop("", "d", keys=(HostKey(AUTHORITY.public, False),))),),
    ),
    "a key for an authority's": _to_certificate(D, accepted=False, hops=(_TO_CERTIFIED,)),
    "an authority's own key": _to_certificate(
        AUTHORITY, accepted=False, hops=(hop(AUTHORITY, by=AUTHORITY),)
    ),
    "another authority's host": _to_certificate(
        D.certified(STRANGER, "d"), accepted=False, hops=(_TO_CERTIFIED,)
    ),
    "one of several authorities": _to_certificate(
        CERTIFIED,
        accepted=True,
        hops=(
            PermittedHop(
                Hop("", ""),
                Hop(
                    "",
                    "d",
                    keys=(
                        HostKey(A.public, False),
                        HostKey(STRANGER.public, True),
                        HostKey(AUTHORITY.public, True),
                    ),
                ),
            ),
        ),
    ),
    "a certificate with another name": _to_certificate(
        D.certified(AUTHORITY, "e"), accepted=False, hops=(_TO_CERTIFIED,)
    ),
    "a user's certificate": _to_certificate(
        D.certified(AUTHORITY, "d", role=USER), accepted=False, hops=(_TO_CERTIFIED,)
    ),
    "an expired certificate": _to_certificate(
        D.certified(AUTHORITY, "d", after=0, before=2_000), accepted=False, hops=(_TO_CERTIFIED,)
    ),
    "a certificate not valid yet": _to_certificate(
        D.certified(AUTHORITY, "d", after=FOREVER - 1), accepted=False, hops=(_TO_CERTIFIED,)
    ),
    "a certificate with options": _to_certificate(
        D.certified(AUTHORITY, "d", critical=TEXT.write("option") + TEXT.write("")),
        accepted=False,
        hops=(_TO_CERTIFIED,),
    ),
    "an RSA authority": _to_certificate(
        D.certified(RSA, "d"), accepted=True, hops=(hop(D, by=RSA),)
    ),
    "an RSA authority with SHA-1": _to_certificate(
        D.certified(RSA, "d", algorithm="ssh-rsa"), accepted=False, hops=(hop(D, by=RSA),)
    ),
    "through an authority's host": _bound(
        *_way(CERTIFIED, A),
        LISTED,
        *_signs(login(A)),
        hops=(_TO_CERTIFIED, hop(A, origin=D, origin_by=AUTHORITY)),
    ),
    "a login that names the key, not the certificate": _bound(
        *_way(CERTIFIED), *_refuses(login(CERTIFIED, to=D)), hops=(_TO_CERTIFIED,)
    ),
    "an RSA key with zeros in front": _bound(
        *_way(RSA),
        LISTED,
        *_signs(login(RSA), login(RSA, to=_zeros_in_front(RSA))),
        hops=(hop(_zeros_in_front(RSA)),),
    ),
    "an inconsistent origin": [
        (add(HERE_TO_A.replace(origin=origin)), REFUSED)
        for origin in (
            Hop("", "b"),
            Hop("", "", keys=(HostKey(B.public, False),)),
            Hop("root", "b", keys=(HostKey(B.public, False),)),
            Hop("root", ""),
            Hop("", "b", keys=(HostKey(_NO_KEY, False),)),
        )
    ],
    "an incomplete target": [
        (add(HERE_TO_A.replace(target=target)), REFUSED)
        for target in (
            Hop("", ""),
            Hop("", "a"),
            Hop("", "", keys=(HostKey(A.public, False),)),
            Hop("", "a", keys=(HostKey(A.public, False), HostKey(_NO_KEY, False))),
        )
    ],
    "as many hops as may be": [
        (add(*[HERE_TO_A] * 1024), DONE),
        (add(*[HERE_TO_A] * 1025), REFUSED),
    ],
}
SCRIPTS |= {f"a session, proved by {name}": [step] for name, step in PROOFS.items()}
# What ssh-agent has not always done.
SCRIPTS |= {
    "the only attempt failed": _bound(
        (bind(A, signature=B.sign(session_of(A))), REFUSED),
        HIDDEN,
        *_refuses(login(A)),
        (remove(), REFUSED),
        (add(), REFUSED),
    ),
    **{
        f"the only attempt was {name}": _bound((frame, REFUSED), HIDDEN)
        for name, frame in {
            "empty": encode(Extension(SESSION_BIND, b"")),
            "with a key of a type to come": bind(replace(A, blob=TEXT.write("ssh-future"))),
            "with a damaged certificate": bind(
                replace(D, blob=CERTIFIED.blob[:-1] + bytes((CERTIFIED.blob[-1] ^ 1,)))
            ),
        }.items()
    },
    "a certificate by a pattern": _to_certificate(
        D.certified(AUTHORITY, "?"), accepted=True, hops=(_TO_CERTIFIED,)
    ),
    "a certificate for everybody": _to_certificate(
        D.certified(AUTHORITY), accepted=False, hops=(_TO_CERTIFIED,)
    ),
    "a user's pattern as long as may be": [
        (add(hop(A, user="x" * 256)), DONE),
        (add(hop(A, user="x" * 257)), REFUSED),
        (add(hop(A, user="\udcff" * 256)), DONE),
        (add(hop(A, user="ü" * 129)), REFUSED),
    ],
}
