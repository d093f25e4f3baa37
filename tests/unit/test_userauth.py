"""Logins and signed messages: only their exact form is recognised."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagent.protocol.userauth import Login, SignedMessage, recognise
from kagent.protocol.wire import STRING, TEXT, Reader
from tests.destinations.keys import AUTHORITY, CERTIFIED, A, B, D, Key
from tests.destinations.proofs import RSA
from tests.destinations.requests import HOST_BOUND, PLAIN, SSHSIG, login

KEYS = st.sampled_from([A, B, RSA, CERTIFIED])
USERS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(
    st.sampled_from([A, B, CERTIFIED]), st.binary(min_size=1, max_size=64), USERS, KEYS, st.data()
)
def test_a_login_and_no_damaged_one(
    host: Key, session: bytes, user: str, key: Key, data: st.DataObject
) -> None:
    method = data.draw(st.sampled_from([PLAIN, HOST_BOUND]))
    written = login(host, session=session, user=user, key=key, method=method)
    meant = Login(session, user, host.public if method == HOST_BOUND else None)
    assert recognise(written, key.public) == meant
    cut = data.draw(st.integers(0, len(written) - 1))
    assert recognise(written[:cut], key.public) is None
    assert recognise(written + b"\0", key.public) is None
    changed = bytearray(written)
    changed[cut] ^= data.draw(st.integers(1, 255))
    found = recognise(bytes(changed), key.public)
    assert found is None or (isinstance(found, Login) and found != meant)


@given(USERS, st.binary(max_size=64))
def test_a_signed_message_and_no_damaged_one(namespace: str, digest: bytes) -> None:
    fields = (namespace.encode(), b"reserved", b"sha256", digest)
    written = b"SSHSIG" + b"".join(map(STRING.write, fields))
    assert recognise(written, A.public) == SignedMessage(namespace)
    for damaged in (written[:-1], written + b"\0", b"sshsig" + written[6:], written[6:]):
        assert recognise(damaged, A.public) is None


@given(st.binary(max_size=300), st.sampled_from([b"", SSHSIG[:6], login(A)[:40]]))
def test_rubbish_is_not_recognised(rubbish: bytes, before: bytes) -> None:
    found = recognise(before + rubbish, A.public)
    assert found is None or isinstance(found, SignedMessage)


@pytest.mark.parametrize(
    ("key", "algorithm", "fits"),
    [
        (RSA, "ssh-rsa", True),
        (RSA, "rsa-sha2-256", True),
        (RSA, "rsa-sha2-512", True),
        (RSA, "rsa-sha2-512-cert-v01@openssh.com", False),
        (RSA, "ssh-ed25519", False),
        (RSA.certified(AUTHORITY, "d"), "rsa-sha2-256-cert-v01@openssh.com", True),
        (RSA.certified(AUTHORITY, "d"), "ssh-rsa-cert-v01@openssh.com", True),
        (RSA.certified(AUTHORITY, "d"), "rsa-sha2-256", False),
        (B, "ecdsa-sha2-nistp256", True),
        (A, "ssh-ed25519-cert-v01@openssh.com", False),
        (CERTIFIED, "ssh-ed25519-cert-v01@openssh.com", True),
        (CERTIFIED, "ssh-ed25519", False),
    ],
)
def test_the_algorithm_is_one_of_the_key(key: Key, algorithm: str, fits: bool) -> None:
    written = login(A, key=key, algorithm=algorithm)
    assert (recognise(written, key.public) is not None) == fits


def test_a_token_may_sign_for_the_web() -> None:
    fields = Reader(B.blob)
    TEXT.read(fields)
    kind = "sk-ecdsa-sha2-nistp256@openssh.com"
    blob = TEXT.write(kind) + fields.rest() + TEXT.write("ssh:")
    key = Key("token", B.private, blob)
    for algorithm in (kind, f"webauthn-{kind}"):
        assert recognise(login(A, key=key, algorithm=algorithm), key.public)


def test_a_login_to_what_is_no_host_is_none() -> None:
    assert recognise(login(A, to=replace(B, blob=b"none")), A.public) is None


def test_a_login_with_another_key_is_none_with_this() -> None:
    assert recognise(login(A, key=B), A.public) is None
    assert recognise(login(A, key=B), A.public, also_certified=True) is None


def test_a_login_with_a_certificate_is_one_with_its_key_where_that_is_asked_for() -> None:
    """And with no other key, and not the other way round."""
    with_certificate, with_key = login(A, key=CERTIFIED), login(A, key=D)
    assert recognise(with_certificate, D.public) is None
    assert recognise(with_certificate, D.public, also_certified=True)
    assert recognise(with_certificate, A.public, also_certified=True) is None
    assert recognise(with_key, CERTIFIED.public, also_certified=True) is None
