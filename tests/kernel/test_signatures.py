"""What the kernel signs, compared with OpenSSL; and what it refuses."""

from __future__ import annotations

import math
import select
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kagent.private.keyfile import parse
from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import Failure, SignRequest, SignResponse, decode, encode
from kagent.protocol.wire import STRING, TEXT, Reader
from tests.hostile.asking import Client, Pair, sign
from tests.kernel import keys
from tests.support.frames import ask, explained
from tests.support.programs import Agent, Person, agent

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


_A_LARGER_KEY = """
import sys
from cryptography.hazmat.primitives.serialization import *
from kagent.keyctl import AsymmetricKey, join_anonymous_session
private = load_ssh_private_key(open(sys.argv[1], "rb").read(), None)
der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
key = AsymmetricKey.add("key", der, join_anonymous_session())
whole = key.sign(bytes(32), "sha256")
assert all(key.sign(bytes(32), "sha256", size) == whole for size in (1, 256) for _ in range(100))
"""


def test_a_larger_key_in_the_place_of_one_overruns_nothing(person: Person) -> None:
    path = person.file("key", keys.rsa(4096))
    person.run(sys.executable, "-c", _A_LARGER_KEY, path)


def test_unknown_flags_are_refused(kagent: Agent) -> None:
    path = keys.rsa(2048)
    kagent.run("ssh-add", kagent.person.file("key", path))
    named, _ = parse(path.read_bytes())
    with kagent.connect() as stream:
        for flags in (1, 8, 10, 2**31):
            ask(stream, encode(SignRequest(named.public_blob, b"data", flags)))
            assert "unknown signature flags" in explained(stream)


# The kernel takes so many seconds for a signature.
_SLOW = """
import time
from kagent.custody import kernel
sign = kernel.sign
def slow(*given):
    made = sign(*given)
    time.sleep({seconds})
    return made
kernel.sign = slow
"""


@pytest.mark.parametrize("seconds", [0.4, 2])
@pytest.mark.parametrize(
    "ends",
    [
        Client.remove,
        lambda client, _: client.remove_all(),
        lambda client, _: client.lock(),
        lambda client, pair: client.add(pair, Confirm()),
    ],
    ids=["removed", "all removed", "locked", "loaded to be confirmed"],
)
def test_no_signature_is_given_away_after_its_keys_end(
    person: Person, ends: Callable[[Client, Pair], bool], seconds: float
) -> None:
    """However long it has taken the kernel."""
    slow = person.changed_kagent(_SLOW.format(seconds=seconds))
    pair, other = Pair.rsa(), Pair.rsa()
    with (
        agent(person, env=slow) as kagent,
        Client(kagent.socket) as ending,
        ExitStack() as several,
    ):
        # So many that the kernel is always at some.
        asking = [several.enter_context(Client(kagent.socket)) for _ in range(8)]
        assert ending.add(pair)
        assert ending.add(other)
        assert ending.signs(other)
        for client in asking:
            client.send(sign(pair))
        time.sleep(0.2)
        assert ends(ending, pair)
        given, _, _ = select.select([client.stream for client in asking], [], [], 0)
        late = [client for client in asking if client.stream not in given]
        assert all(isinstance(client.answer(), Failure) for client in late)


@pytest.mark.parametrize(
    ("options", "custody"),
    [
        (["-t", "rsa", "-b", "2048"], "kernel"),
        (["-t", "rsa", "-b", "2304"], "sealed (the kernel can't sign with this 2304-bit RSA key"),
        (["-t", "ed25519"], "sealed (ssh-ed25519: the kernel can't sign with this type"),
        (["-t", "ecdsa", "-b", "384"], "sealed (ecdsa-sha2-nistp384: the kernel can't sign"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_custody_by_what_the_kernel_can(kagent: Agent, options: list[str], custody: str) -> None:
    key = kagent.person.home / "key"
    kagent.person.run("ssh-keygen", "-q", "-N", "", "-f", key, *options)
    assert f"custody {custody}" in kagent.run("kagent-add", "-v", key).stderr
    kagent.run("ssh-add", "-T", f"{key}.pub")


def test_an_exponent_that_takes_the_front_long_to_verify_with(kagent: Agent) -> None:
    """The kernel would take it; but who loads such a key could keep all others waiting."""
    usual = rsa.generate_private_key(65537, 2048).private_numbers()
    order = math.lcm(usual.p - 1, usual.q - 1)
    exponent = next(one for one in range(2**2000 + 1, 2**2001, 2) if math.gcd(one, order) == 1)
    d = pow(exponent, -1, order)
    dmp1, dmq1 = rsa.rsa_crt_dmp1(d, usual.p), rsa.rsa_crt_dmq1(d, usual.q)
    public = rsa.RSAPublicNumbers(exponent, usual.public_numbers.n)
    numbers = rsa.RSAPrivateNumbers(usual.p, usual.q, d, dmp1, dmq1, usual.iqmp, public)
    pem = numbers.private_key().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    told = kagent.run("kagent-add", "-v", kagent.person.file("key", pem)).stderr
    assert "custody sealed (the kernel doesn't sign with an RSA key of an exponent of 2001" in told
    kagent.run("ssh-add", "-T", kagent.person.file("key.pub", kagent.run("ssh-add", "-L").stdout))


def test_sealed_although_the_kernel_could(person: Person) -> None:
    """For a signing farm, since OpenSSL's RSA is several times as fast as the kernel's."""
    path = keys.rsa(2048)
    with agent(person, "kagent", "--custody=sealed") as kagent:
        told = kagent.run("kagent-add", "-v", person.file("key", path))
        assert "custody sealed (asked for)" in told.stderr
        kagent.run("ssh-add", "-T", person.file("key.pub", path.with_suffix(".pub")))
        assert "asymmetric" not in person.run("keyctl", "show", "@s").stdout


def test_another_custody_replaces_the_first(person: Person) -> None:
    """A key is in one place only: with the kernel, until it is loaded again to be sealed."""
    path = keys.rsa(2048)
    key = person.file("key", path)
    person.file("key.pub", path.with_suffix(".pub"))
    with agent(person) as first:
        first.run("ssh-add", key)
        assert "asymmetric" in person.run("keyctl", "show", "@s").stdout
    with agent(person, "kagent", "--custody=sealed") as second:
        second.run("ssh-add", "-T", f"{key}.pub")
        second.run("ssh-add", key)
        assert "asymmetric" not in person.run("keyctl", "show", "@s").stdout
        second.run("ssh-add", "-T", f"{key}.pub")
        assert len(second.run("ssh-add", "-l").stdout.splitlines()) == 1
