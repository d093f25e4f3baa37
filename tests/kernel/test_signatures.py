"""What the kernel signs, compared with OpenSSL; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
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


@given(
    bits=st.sampled_from(keys.SIZES),
    number=st.integers(0, 2),
    flags=st.sampled_from(sorted(ALGORITHMS)),
    data=st.binary(max_size=3000),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_byte_for_byte(kagent: Agent, bits: int, number: int, flags: int, data: bytes) -> None:
    path = keys.rsa(bits, number)
    named, _ = parse(path.read_bytes())
    with kagent.connect() as stream:
        request = encode(SignRequest(named.public_blob, data, flags))
        reply = decode(ask(stream, request)[4:])
        if not isinstance(reply, SignResponse):
            kagent.run("ssh-add", kagent.person.file(path.name, path))
            reply = decode(ask(stream, request)[4:])
    assert isinstance(reply, SignResponse)
    name, algorithm = ALGORITHMS[flags]
    reader = Reader(reply.signature)
    assert TEXT.read(reader) == name
    openssl = load_ssh_private_key(path.read_bytes(), None)
    assert STRING.read(reader) == openssl.sign(data, padding.PKCS1v15(), algorithm())  # type: ignore


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
