"""Where a key may be used: scripts of requests, and what kagent does otherwise than ssh-agent."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from kagent.front.sessions import NotPermitted, Sessions
from kagent.protocol.constraints import RestrictDestination
from kagent.protocol.messages import (
    SESSION_BIND,
    AddIdConstrained,
    Extension,
    SessionBind,
    decode,
    encode,
)
from kagent.protocol.userauth import recognise
from tests.destinations.agents import DONE, REFUSED, SIGNED, Rules, outcome
from tests.destinations.keys import AUTHORITY, UNKNOWN, USERS_KEY, A, B, D, Key, hop
from tests.destinations.requests import (
    LIST,
    PLAIN,
    SSHSIG,
    add,
    bind,
    forward,
    login,
    session_of,
    sign,
)
from tests.destinations.scripts import HIDDEN, LISTED, SCRIPTS, Script, play

A_TO_B = hop(B, origin=A)
FAILS = bind(B, signature=A.sign(session_of(B)))


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_rules(script: Script) -> None:
    play(Rules(), script)


# Stricter than ssh-agent, on purpose.


@pytest.mark.parametrize(
    "script",
    [
        [(add(hop(B)), DONE), (FAILS, REFUSED), (bind(B), DONE), HIDDEN, (sign(login(B)), REFUSED)],
        [
            (add(hop(A), A_TO_B), DONE),
            (forward(A), DONE),
            LISTED,
            (FAILS, REFUSED),
            HIDDEN,
            (bind(B), DONE),
            HIDDEN,
            (sign(login(B)), REFUSED),
        ],
        # Bound to a login before: it is not the host's to fail.
        [
            (add(hop(A)), DONE),
            (bind(A), DONE),
            (FAILS, REFUSED),
            LISTED,
            (sign(login(A)), SIGNED),
        ],
    ],
    ids=["first", "later", "too late"],
)
def test_a_host_that_did_not_prove_itself_is_not_forgotten(script: Script) -> None:
    play(Rules(), script)


def test_a_list_of_no_destinations_is_refused() -> None:
    nowhere = (RestrictDestination(()),)
    rules = Rules()
    play(rules, [(encode(AddIdConstrained(USERS_KEY.named(), "key", nowhere)), REFUSED), HIDDEN])
    assert "0 hops" in rules.refusals[0]


# Of a type that isn't known: what can't be checked isn't believed, and nothing else fails.

CERTIFIED_BY_UNKNOWN = D.certified(UNKNOWN, "d")
UNKNOWN_TOO = hop(UNKNOWN), hop(A), hop(D, by=UNKNOWN), hop(B, origin=UNKNOWN)


@pytest.mark.parametrize(
    "script",
    [
        [(bind(A), DONE), LISTED, (sign(login(A)), SIGNED)],
        [(bind(UNKNOWN), REFUSED), HIDDEN, (sign(login(UNKNOWN)), REFUSED)],
        [
            (bind(CERTIFIED_BY_UNKNOWN), REFUSED),
            HIDDEN,
            (sign(login(CERTIFIED_BY_UNKNOWN)), REFUSED),
        ],
        [(forward(UNKNOWN), REFUSED), (bind(B), DONE), HIDDEN, (sign(login(B)), REFUSED)],
        [(forward(UNKNOWN), REFUSED), (forward(UNKNOWN), REFUSED), (bind(A), DONE), HIDDEN],
    ],
    ids=["another host", "the host", "its authority", "on the way", "a host that claims to be"],
)
def test_a_host_key_of_an_unknown_type_is_not_believed(script: Script) -> None:
    play(Rules(), [(add(*UNKNOWN_TOO), DONE), LISTED, *script])


@pytest.mark.parametrize("host", [UNKNOWN, CERTIFIED_BY_UNKNOWN], ids=["key", "authority"])
def test_a_host_key_of_an_unknown_type_spoils_nothing_else(host: Key) -> None:
    play(Rules(), [(add(), DONE), (bind(host), REFUSED), LISTED, (sign(login(host)), SIGNED)])
    sessions = connection(bind(host))
    signed = recognise(login(host), USERS_KEY.public)
    assert not sessions.forwarded
    assert [session.proved_blob for session in sessions.way(signed)] == [b""]
    assert connection(forward(host)).forwarded


def test_other_limits() -> None:
    play(
        Rules(),
        [
            (add(hop(A)), DONE),
            (bind(A), DONE),
            (sign(login(A, user="x" * 256)), SIGNED),
            (sign(login(A, user="x" * 257)), REFUSED),
        ],
    )
    play(Rules(), [(bind(A, session=bytes(129)), REFUSED)])
    play(Rules(), [(bind(A, more=b"\0"), REFUSED)])


def test_a_certificate_ends_while_the_connection_goes_on() -> None:
    now = 1_999.0
    rules = Rules(clock=lambda: now)
    host = D.certified(AUTHORITY, "d", after=1_000, before=2_000)
    play(
        rules, [(add(hop(D, by=AUTHORITY)), DONE), (bind(host), DONE), (sign(login(host)), SIGNED)]
    )
    now = 2_000.0
    assert outcome(rules.ask(0, LIST)) == ()
    assert outcome(rules.ask(0, sign(login(host)))) == REFUSED


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([sign(login(A))], "no-host: the key is for .* ssh has named none"),
        ([bind(A), sign(SSHSIG)], "no-login: .* no login"),
        (
            [bind(A), sign(login(A, user="alice"))],
            r"other-host: .* not for the hop from this machine to ED25519 SHA256:\S+ as 'alice'$",
        ),
        (
            [bind(B), LIST],
            r"other-host: .* not for the hop from this machine to ECDSA SHA256:\S+$",
        ),
        ([forward(A), bind(A, 1), LIST], r"other-host: .* from (ED25519 SHA256:\S+) to \1$"),
        ([bind(A), sign(login(A, number=1))], "other-host: .* another session"),
        ([bind(A), sign(login(A, to=B))], "other-host: .* another host"),
        ([forward(A), bind(B), sign(login(B, method=PLAIN))], "no-host: .* must name the host"),
        ([forward(A), forward(B), LIST], "other-host: .* but not from it"),
        ([forward(A), sign(login(A))], "other-host: .* forwarding"),
        ([FAILS], ".*(incorrect|no) signature"),
        ([FAILS, LIST], "unproven: .* earlier attempt"),
        ([bind(A), bind(B)], "binding: .* login already"),
        ([forward(A), bind(B, session=session_of(A))], "binding: .* another host key"),
        ([bind(A, session=bytes(129))], "binding: the session id is too long"),
        ([bind(UNKNOWN)], "binding: .* unknown type: ssh-future"),
        ([bind(UNKNOWN), LIST], "unproven: .* can't be checked"),
    ],
)
def test_a_refusal_has_its_cause_and_its_reason(frames: Sequence[bytes], reason: str) -> None:
    rules = Rules()
    rules.ask(0, add(hop(A, user="root"), A_TO_B))
    for frame in frames:
        rules.ask(0, frame)
    assert re.match(reason, rules.refusals[-1])


# What is shown and logged of a connection.


def connection(*frames: bytes) -> Sessions:
    rules = Rules()
    for frame in frames:
        rules.ask(0, frame)
    return rules.sessions[0] if frames else Sessions()


@pytest.mark.parametrize(
    ("frames", "forwarded"),
    [
        ([], False),
        ([bind(A)], False),
        ([bind(A), FAILS], False),
        ([forward(A)], True),
        ([forward(A), bind(B)], True),
        ([FAILS], True),
        ([FAILS, bind(A)], True),
    ],
)
def test_whether_requests_come_from_another_host(frames: list[bytes], forwarded: bool) -> None:
    sessions = connection(*frames)
    assert sessions.forwarded == forwarded
    assert sessions.attempted == bool(frames)


@pytest.mark.parametrize(
    ("frames", "data", "hosts"),
    [
        ([], login(A), ""),
        ([bind(A)], login(A), "a"),
        ([bind(A)], login(A, method=PLAIN), "a"),
        ([bind(A)], login(A, number=1), ""),
        ([bind(A)], login(B), ""),
        ([bind(A)], SSHSIG, ""),
        ([bind(A)], b"data", ""),
        ([FAILS, bind(A)], login(A), "a"),
        ([FAILS, bind(A)], login(A, method=PLAIN), ""),
        ([forward(A)], login(A), "a"),
        ([forward(A)], SSHSIG, "a"),
        ([forward(A), bind(B)], login(B), "ab"),
        ([forward(A), bind(B)], login(B, method=PLAIN), "a"),
        ([forward(A), bind(B)], SSHSIG, "a"),
    ],
)
def test_only_a_host_that_is_sure_is_told(frames: list[bytes], data: bytes, hosts: str) -> None:
    way = connection(*frames).way(recognise(data, USERS_KEY.public))
    names = {A.blob: "a", B.blob: "b"}
    assert "".join(names[session.host.blob] for session in way) == hosts


@pytest.mark.parametrize(
    ("frames", "host"),
    [
        ([], ""),
        ([bind(A)], "a"),
        ([bind(A), bind(B)], "a"),
        ([forward(A)], ""),
        ([forward(A), bind(B)], ""),
        ([FAILS], ""),
        ([FAILS, bind(A)], ""),
        ([bind(UNKNOWN)], ""),
    ],
)
def test_a_login_from_here_leads_to_one_host(frames: list[bytes], host: str) -> None:
    direct = connection(*frames).direct
    assert ("" if direct is None else {A.blob: "a", B.blob: "b"}[direct.host.blob]) == host
    assert (b"" if direct is None else direct.proved_blob) == (A.blob if host else b"")


def test_a_bind_that_is_not_verified_to_its_end_counts_as_failed() -> None:
    request = decode(bind(A)[4:])
    assert isinstance(request, Extension)
    assert request.name == SESSION_BIND

    async def interrupted(_: SessionBind) -> None:
        raise KeyboardInterrupt

    sessions = Sessions()
    with pytest.raises(KeyboardInterrupt):
        sessions.bind(request.contents, interrupted).send(None)
    assert sessions.broken
    assert sessions.attempted
    assert not sessions.bound


def test_an_unreadable_bind_is_not_verified() -> None:
    async def never(_: SessionBind) -> None:
        raise AssertionError

    for contents in (b"", b"\0\0\0\1x", bytes(50)):
        sessions = Sessions()
        with pytest.raises((NotPermitted, ValueError)):
            sessions.bind(contents, never).send(None)
        assert sessions.forwarded
