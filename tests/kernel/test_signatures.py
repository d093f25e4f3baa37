"""What the kernel signs, compared with OpenSSL; and what it refuses."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kagent.keyfile import parse
from kagent.protocol.messages import SignRequest, SignResponse, decode, encode
from kagent.protocol.wire import STRING, TEXT, Reader
from tests.host.test_server import ask, explained
from tests.kernel import keys
from tests.programs import Agent

ALGORITHMS = {
    0: ("ssh-rsa", hashes.SHA1),
    2: ("rsa-sha2-256", hashes.SHA256),
    4: ("rsa-sha2-512", hashes.SHA512),
    6: ("rsa-sha2-256", hashes.SHA256),  # as ssh-agent
}


@lru_cache
def held(bits: int) -> tuple[bytes, RSAPrivateKey]:
    """The public blob of a key, and the key in OpenSSL's hands."""
    data = keys.rsa(bits).read_bytes()
    private = load_ssh_private_key(data, None)
    assert isinstance(private, RSAPrivateKey)
    return parse(data)[0].public_blob, private


@given(
    bits=st.sampled_from(keys.SIZES),
    flags=st.sampled_from(sorted(ALGORITHMS)),
    data=st.binary(max_size=3000),
)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_byte_for_byte(kagent: Agent, bits: int, flags: int, data: bytes) -> None:
    blob, openssl = held(bits)
    request = encode(SignRequest(blob, data, flags))
    with kagent.connect() as stream:
        reply = decode(ask(stream, request)[4:])
        if not isinstance(reply, SignResponse):
            kagent.run("ssh-add", kagent.person.file(f"key-{bits}", keys.rsa(bits)))
            reply = decode(ask(stream, request)[4:])
    assert isinstance(reply, SignResponse)
    name, algorithm = ALGORITHMS[flags]
    reader = Reader(reply.signature)
    assert TEXT.read(reader) == name
    assert STRING.read(reader) == openssl.sign(data, padding.PKCS1v15(), algorithm())


def test_unknown_flags_are_refused(kagent: Agent) -> None:
    path = keys.rsa(2048)
    kagent.run("ssh-add", kagent.person.file("key", path))
    named, _ = parse(path.read_bytes())
    with kagent.connect() as stream:
        for flags in (1, 8, 10, 2**31):
            ask(stream, encode(SignRequest(named.public_blob, b"data", flags)))
            assert "unknown signature flags" in explained(stream)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-t", "ed25519"], "ssh-ed25519: the kernel can't sign with this type of key"),
        (["-t", "ecdsa", "-b", "384"], "ecdsa-sha2-nistp384: the kernel can't sign"),
        (["-t", "rsa", "-b", "2304"], "can't sign with this 2304-bit RSA key"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_keys_that_the_kernel_does_not_sign_with(
    kagent: Agent, folder: Path, options: list[str], reason: str
) -> None:
    key = kagent.person.home / "key"
    kagent.person.run("ssh-keygen", "-q", "-N", "", "-f", key, *options)
    for loader in ("ssh-add", "kagent-add"):
        told = kagent.run(loader, key, check=False)
        assert told.returncode == 1
        assert 'Could not add identity "' in told.stderr
        assert reason in kagent.logged()
    assert reason in told.stderr
    assert "1024, 1536, 2048, 3072 and 4096 bits" in told.stderr
    assert kagent.run("ssh-add", "-l", check=False).stdout == "The agent has no identities.\n"


def test_constrained_keys_are_refused(kagent: Agent) -> None:
    """Until constraints are kept, nothing is held without the one asked for."""
    key = kagent.person.file("key", keys.rsa(2048))
    for constraint in (["-t", "60"], ["-c"]):
        assert kagent.run("ssh-add", *constraint, key, check=False).returncode == 1
        assert "constraints are not supported yet" in kagent.logged()
    assert kagent.run("ssh-add", "-l", check=False).stdout == "The agent has no identities.\n"
