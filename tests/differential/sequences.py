"""Sequences of requests, of every kind that an agent knows, and some of them damaged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import strategies as st

from kagent.private.keyfile.pem import from_library
from kagent.protocol.constraints import RestrictDestination
from kagent.protocol.messages import QUERY, SESSION_BIND, Type
from kagent.protocol.privatekey import PRIVATE_KEY, NamedPrivateKey, SkEd25519PrivateKey
from kagent.protocol.publickey import USER
from kagent.protocol.wire import STRING, TEXT, UINT32
from tests.destinations import requests
from tests.destinations.keys import (
    AUTHORITY,
    CERTIFIED,
    POST_QUANTUM,
    SECOND,
    UNKNOWN,
    USERS_KEY,
    A,
    B,
    C,
    Key,
    hop,
)
from tests.support import certificates
from tests.support.frames import frame


@dataclass(frozen=True)
class Step:
    """A request, on one of the connections."""

    told: str
    frame: bytes = field(repr=False)
    connection: int = 0


# What is held, by what is said of it.  The first ones are for hosts, too: they can log in.
_RSA = rsa.generate_private_key(65537, 1024)
_POINT = certificates.POINT
_SK = NamedPrivateKey(
    "sk-ssh-ed25519@openssh.com", SkEd25519PrivateKey(_POINT, "ssh:", 1, b"handle", b"")
)
_CERTIFIED = SECOND.certified(AUTHORITY, "root", role=USER)
KEYS: dict[str, NamedPrivateKey] = {
    "ed25519": USERS_KEY.named(),
    "another ed25519": SECOND.named(),
    "its certificate": SECOND.named().certified(_CERTIFIED.public),
    "rsa": from_library(_RSA),
    "nistp256": from_library(ec.generate_private_key(ec.SECP256R1())),
    "nistp521": from_library(ec.generate_private_key(ec.SECP521R1())),
    "post-quantum": from_library(POST_QUANTUM.private),
    "of a token": _SK,
}
_LOGGING_IN = {"ed25519": USERS_KEY, "another ed25519": SECOND, "its certificate": _CERTIFIED}
_CERTIFICATES = {
    **{f"odd: {name}": one for name, one in certificates.ODD.items()},
    **{f"wrong: {name}": one for name, one in certificates.WRONG.items()},
}
_HOSTS = [A, B, C, CERTIFIED]
_COMMENTS = st.sampled_from([b"c", b"c", b"", b"c\0", b"c\0c", b"\0", b"\xff\xfe", b"a\nb"])
_BEHIND = st.sampled_from([*[b""] * 6, b"\0", bytes(4), b"more"])
_PASSPHRASES = st.sampled_from([b"one", b"one", b"one", b"other", b""])


def _extension(name: str, *contents: bytes) -> bytes:
    return b"\xff" + TEXT.write(name) + b"".join(contents)


def _destinations(draw: st.DrawFn) -> bytes:
    hosts = draw(st.lists(st.sampled_from([*_HOSTS, UNKNOWN]), min_size=1, max_size=2))
    hops = [
        hop(host, user=draw(st.sampled_from(["", "", "root", "r*", "alice"]))) for host in hosts
    ]
    if draw(st.integers(0, 2)) == 0:
        hops.append(hop(draw(st.sampled_from(_HOSTS)), origin=hosts[0]))
    constraint = RestrictDestination(tuple(hops))
    return _extension(constraint.extension, constraint.write())


_CONSTRAINTS = {
    "a lifetime": b"\1" + UINT32.write(1000),
    "no lifetime": b"\1" + UINT32.write(0),
    "a yes": b"\2",
    "an unknown constraint": b"\3",
    "an unknown extension": _extension("unknown@example.org", STRING.write(b"")),
    "no hosts": _extension(RestrictDestination.extension, STRING.write(b"")),
    "no provider": _extension("sk-provider@openssh.com", STRING.write(b"/nowhere/lib.so")),
    "certificates": _extension(
        "associated-certs-v00@openssh.com", b"\0", STRING.write(STRING.write(_CERTIFIED.blob))
    ),
}


def _key(draw: st.DrawFn) -> tuple[str, NamedPrivateKey]:
    """One to be held; seldom one that is odd, or wrong."""
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(list(_CERTIFICATES)))
        return name, _CERTIFICATES[name].named
    name = draw(st.sampled_from(list(KEYS)))
    return name, KEYS[name]


def _load(draw: st.DrawFn) -> Step:
    name, key = _key(draw)
    body = [PRIVATE_KEY.write(key), STRING.write(draw(_COMMENTS))]
    if draw(st.booleans()):
        return Step(f"load {name}", frame(Type.ADD_IDENTITY, *body, draw(_BEHIND)))
    wanted = draw(st.lists(st.sampled_from([*_CONSTRAINTS, *["hosts"] * 5]), max_size=2))
    made = [_destinations(draw) if one == "hosts" else _CONSTRAINTS[one] for one in wanted]
    told = f"load {name} with {' and '.join(wanted) or 'nothing'}"
    return Step(told, frame(Type.ADD_ID_CONSTRAINED, *body, *made, draw(_BEHIND)))


def _blob(draw: st.DrawFn) -> tuple[str, bytes]:
    name, key = _key(draw)
    return name, key.public_blob


def _sign(draw: st.DrawFn) -> Step:
    name, blob = _blob(draw)
    data, what = b"data", "data"
    match draw(st.integers(0, 3)):
        case 0:
            data, what = requests.SSHSIG, "a file"
        case 1 | 2 if name in _LOGGING_IN:
            host = draw(st.sampled_from(_HOSTS))
            user = draw(st.sampled_from(["root", "root", "alice", ""]))
            method = draw(st.sampled_from([requests.HOST_BOUND, requests.PLAIN]))
            key = _LOGGING_IN[name]
            data = requests.login(host, user=user, method=method, key=key)
            what = f"a login as {user} to {host.name}"
    flags = draw(st.sampled_from([0, 0, 2, 4, 6, 1, 8]))
    body = STRING.write(blob), STRING.write(data), UINT32.write(flags), draw(_BEHIND)
    return Step(f"sign {what} with {name}, flags {flags}", frame(Type.SIGN_REQUEST, *body))


def _remove(draw: st.DrawFn) -> Step:
    name, blob = _blob(draw)
    return Step(f"remove {name}", frame(Type.REMOVE_IDENTITY, STRING.write(blob), draw(_BEHIND)))


def _bind(draw: st.DrawFn) -> Step:
    host: Key = draw(st.sampled_from([*_HOSTS, UNKNOWN]))
    forwarding = draw(st.booleans())
    how: dict[str, bytes] = draw(
        st.sampled_from(
            [
                *[{}] * 6,
                {"signature": A.sign(b"other")},
                {"session": bytes(129)},
                {"session": b""},
                {"more": b"\0"},
            ]
        )
    )
    number = draw(st.sampled_from([0, 0, 0, 1]))
    told = f"{'forward' if forwarding else 'bind'} to {host.name} {number} {[*how]}"
    return Step(told, requests.bind(host, number, forwarding=forwarding, **how))


def _extend(draw: st.DrawFn) -> Step:
    name = draw(st.sampled_from([QUERY, SESSION_BIND, "unknown@example.org", ""]))
    return Step(f"extension {name!r}", frame(Type.EXTENSION, TEXT.write(name), draw(_BEHIND)))


def _of_token(draw: st.DrawFn) -> Step:
    number = draw(
        st.sampled_from(
            [
                Type.ADD_SMARTCARD_KEY,
                Type.ADD_SMARTCARD_KEY_CONSTRAINED,
                Type.REMOVE_SMARTCARD_KEY,
            ]
        )
    )
    provider = draw(st.sampled_from([b"/nowhere/lib.so", b"/etc/passwd", b""]))
    body = STRING.write(provider), STRING.write(b"pin"), draw(_BEHIND)
    return Step(f"{number.name} {provider!r}", frame(number, *body))


def _lock(draw: st.DrawFn) -> Step:
    number = draw(st.sampled_from([Type.LOCK, Type.UNLOCK, Type.UNLOCK]))
    passphrase = draw(_PASSPHRASES)
    body = STRING.write(passphrase), draw(_BEHIND)
    return Step(f"{number.name} {passphrase!r}", frame(number, *body))


def _plain(draw: st.DrawFn) -> Step:
    numbers = [Type.REQUEST_IDENTITIES, Type.REMOVE_ALL_IDENTITIES, Type.REMOVE_ALL_RSA_IDENTITIES]
    number = draw(st.sampled_from([*[int(one) for one in numbers], 0, 1, 5, 10, 12, 14, 30, 255]))
    return Step(f"message {number}", frame(number, draw(_BEHIND)))


_KINDS = [*[_load] * 5, *[_sign] * 5, *[_bind] * 3, *[_remove] * 2, _plain, _extend, _of_token]


def _damaged(draw: st.DrawFn, step: Step) -> Step:
    """Somewhere cut off, or another byte in it; the length fits, or not at all."""
    body = bytearray(step.frame[5:])
    # The length isn't always the same: that of a signature by ECDSA isn't.
    place = draw(st.integers(0, 2**16)) % max(1, len(body))
    match draw(st.integers(0, 5)):
        case 0:
            del body[place:]
        case 1:
            length = draw(st.sampled_from([0, 262145, 2**32 - 1]))
            told, header = f"{step.told}, of {length} bytes", UINT32.write(length)
            return replace(step, told=told, frame=header + b"\x0b")
        case _ if body:
            body[place] = draw(st.integers(0, 255))
    return replace(step, told=f"{step.told}, damaged", frame=frame(step.frame[4], bytes(body)))


@st.composite
def sequences(draw: st.DrawFn) -> list[Step]:
    """Some requests, on two connections; a lock is seldom among them, since a guess takes time."""
    kinds = [*_KINDS, *[_lock] * 2] if draw(st.integers(0, 4)) == 0 else _KINDS
    steps = []
    for _ in range(draw(st.integers(1, 12))):
        step = draw(st.sampled_from(kinds))(draw)
        if draw(st.integers(0, 7)) == 0:
            step = _damaged(draw, step)
        steps.append(replace(step, connection=int(draw(st.integers(0, 3)) == 0)))
    return steps
