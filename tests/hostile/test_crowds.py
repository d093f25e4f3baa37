"""Who asks for much, or slowly, keeps nobody out."""

from __future__ import annotations

import math
import secrets
import select
import socket
import time
from contextlib import ExitStack

import pytest

from kagent.protocol.messages import (
    AddIdentity,
    RequestIdentities,
    SignRequest,
    Success,
    encode,
)
from kagent.protocol.privatekey import NamedPrivateKey, RsaPrivateKey
from tests.hostile.asking import Client, Pair, certificate_of_a_server
from tests.hostile.people import Login, attack, finish
from tests.hostile.programs.crowd import KINDS
from tests.support.programs import Agent, wait_until

# For what takes a moment, on a machine that the crowd keeps busy too.
SECONDS = 10.0
CROWD = 40


@pytest.mark.parametrize("count", [20, 200])
def test_headers_of_keys_that_never_come(attacked: Agent, falls: bool, count: int) -> None:
    assert keeps_out(attacked, "header", count) == falls


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("header", "guesses")])
def test_a_crowd_keeps_no_key_out(attacked: Agent, falls: bool, kind: str) -> None:
    if falls and kind in ("bad keys", "bad binds"):
        pytest.skip("the stand-in answers those at once")
    assert keeps_out(attacked, kind, 30) == falls


def keeps_out(attacked: Agent, kind: str, count: int) -> bool:
    """Whether so many processes that are busy in that way keep the owner's key out."""
    path = attacked.person.file("key", Pair.new().file)
    with attack(attacked.person, Login.ANOTHER, "crowd", attacked.socket, kind, count) as crowd:
        time.sleep(1)
        began = time.monotonic()
        told = attacked.run("ssh-add", path, check=False)
        took = time.monotonic() - began
        finish(crowd)
    print(f"{took:.1f} s", told)
    return told.returncode != 0 or took > SECONDS


def test_many_signatures_of_one_process(kagent: Agent) -> None:
    """As those of a host that the agent is forwarded to are; by a key that takes long."""
    path = kagent.person.file("key", Pair.new().file)
    kagent.run("ssh-add", "-q", path)
    public = kagent.person.file("key.pub", kagent.run("ssh-add", "-L").stdout)
    slow = slow_key()
    with Client(kagent.socket) as client, ExitStack() as crowd:
        assert isinstance(client.ask(AddIdentity(slow, "slow")), Success)
        streams = [crowd.enter_context(kagent.connect()) for _ in range(CROWD)]
        for stream in streams:
            stream.sendall(encode(SignRequest(slow.public_blob, b"data", 2)))
        kagent.run("ssh-add", "-T", public)
        answered, _, _ = select.select(streams, [], [], 0)
    # It was asked for last.
    assert len(answered) < CROWD // 2


def test_many_questions_for_keys_that_are_not_there(kagent: Agent) -> None:
    """For each of them a worker looks whether it is to be fetched."""
    with Client(kagent.socket) as client, ExitStack() as crowd:
        assert client.add(Pair.new())  # what that takes the keeper imports first
        streams = [crowd.enter_context(Client(kagent.socket)).stream for _ in range(5 * CROWD)]
        for stream in streams:
            blob = Pair.new().blob
            stream.sendall(encode(SignRequest(blob, b"data", 0)))
        wait_until(lambda: len(_answered(streams)) >= CROWD // 2)
        assert client.add(Pair.new())
        # It was asked for last.
        assert len(_answered(streams)) < len(streams) // 2


def test_many_lists_for_one_process(kagent: Agent) -> None:
    """Where somebody has put so much beside the keys that it takes long to look through it."""
    certificate = kagent.person.file("certificate.der", certificate_of_a_server())
    put = f"keyctl padd asymmetric $i @s <{certificate} || exit 1"
    kagent.person.run("sh", "-c", f"for i in $(seq 100); do {put}; done")
    with ExitStack() as crowd:
        streams = [crowd.enter_context(Client(kagent.socket)).stream for _ in range(5 * CROWD)]
        for stream in streams:
            stream.sendall(encode(RequestIdentities()))
        kagent.run("ssh-add", "-l", check=False)
        assert len(_answered(streams)) < len(streams) // 2


def _answered(streams: list[socket.socket]) -> list[socket.socket]:
    return select.select(streams, [], [], 0)[0]


def slow_key() -> NamedPrivateKey:
    """Of what are no primes, which to find would take long; nobody verifies what it signs."""
    first, second = (secrets.randbits(3072) | 3 << 3070 | 1 for _ in range(2))
    exponent = 65537
    order = math.lcm(first - 1, second - 1)
    if math.gcd(order, exponent) != 1 or math.gcd(first, second) != 1:
        return slow_key()
    numbers = (pow(exponent, -1, order), pow(second, -1, first), first, second)
    return NamedPrivateKey("ssh-rsa", RsaPrivateKey(first * second, exponent, *numbers))


def test_who_guesses_does_not_keep_the_owner_out(kagent: Agent) -> None:
    """At least not from anything but unlocking."""
    with (
        Client(kagent.socket) as client,
        attack(kagent.person, Login.ANOTHER, "crowd", kagent.socket, "guesses", 5) as crowd,
    ):
        assert client.add(pair := Pair.new())
        assert client.lock(b"right")
        time.sleep(2)
        began = time.monotonic()
        assert client.unlock(b"right")
        print(f"unlocked after {time.monotonic() - began:.1f} s")
        assert client.signs(pair)
        finish(crowd)
