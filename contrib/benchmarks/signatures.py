"""Signatures, by one client and by many at once: beside ssh-agent, and beside the bare syscall."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from kagent.keyctl import AsymmetricKey, join_anonymous_session, syscalls
from kagent.private import pkcs8
from tests.support.programs import Agent, Person

from .figures import Goal, Row, Series
from .running import (
    Bench,
    NotHere,
    Work,
    first_signature,
    many_clients,
    milliseconds,
    one_client,
    rate,
    repeat,
    sign_request,
)

FEW, MANY = 8, 64
CHART = "clients"  # the benchmark that the chart is made of
_CHARTED = (1, 2, 4, 8, 16, 32, 64)
_LOOPS = os.cpu_count() or 1
_INFO = "enc=pkcs1 hash=sha256"


@dataclass(frozen=True)
class Kind:
    """A kind of key."""

    name: str
    options: tuple[str, ...]  # ssh-keygen's
    count: int  # signatures that one client asks for in a round
    together: int  # and many clients: as many whatever their number, so that as many bursts end
    one: Goal | None = None  # one client: time
    many: Goal | None = None  # many clients: throughput

    def key(self, person: Person) -> Path:
        path = person.home / self.name
        return path if path.exists() else person.key(self.name, *self.options)


_ED25519 = Kind("Ed25519", ("-t", "ed25519"), 300, 1600, Goal(0.9), Goal(1.5, at_least=True))
SEALED = {
    "ed25519": _ED25519,
    "ecdsa": Kind("ECDSA-256", ("-t", "ecdsa"), 300, 1600, Goal(1.1), Goal(1.2, at_least=True)),
    "rsa-2048": Kind(
        "RSA-2048", ("-t", "rsa", "-b", "2048"), 200, 768, Goal(1.1), Goal(1.5, at_least=True)
    ),
    "rsa-4096": Kind("RSA-4096", ("-t", "rsa", "-b", "4096"), 40, 256, Goal(1.1)),
}
KERNEL = {
    "rsa-2048": Kind(
        "RSA-2048", ("-t", "rsa", "-b", "2048"), 30, 128, Goal(1.15), Goal(0.9, at_least=True)
    ),
    "rsa-4096": Kind(
        "RSA-4096", ("-t", "rsa", "-b", "4096"), 8, 64, Goal(1.03), Goal(0.97, at_least=True)
    ),
}


def sealed(kind: Kind, name: str, bench: Bench) -> Iterator[Row]:
    """Sign workers beside ssh-agent."""
    key = kind.key(bench.person)
    frame = sign_request(key)
    with (
        bench.holding("kagent", key, options=("--custody=sealed",)) as kagent,
        bench.holding("ssh-agent", key) as openssh,
    ):
        yield bench.pair(
            name,
            f"{kind.name}, one client",
            "ms",
            ("kagent", lambda: one_client(kagent.socket, frame, kind.count)),
            ("ssh-agent", lambda: one_client(openssh.socket, frame, kind.count)),
            kind.one,
        )
        yield _first(bench, name, kind, frame, kagent, openssh)
        few, stock_few, many, stock_many = bench.in_turn(
            lambda: many_clients(kagent.socket, frame, FEW, kind.together // FEW),
            lambda: many_clients(openssh.socket, frame, FEW, kind.together // FEW),
            lambda: many_clients(kagent.socket, frame, MANY, kind.together // MANY),
            lambda: many_clients(openssh.socket, frame, MANY, kind.together // MANY),
        )
    for clients, ours, theirs in ((FEW, few, stock_few), (MANY, many, stock_many)):
        pair = Series("kagent", ours), Series("ssh-agent", theirs)
        yield Row(name, f"{kind.name}, {clients} clients", "/s", *pair, kind.many, clients)
    yield _no_worse(name, kind, few, many)


def kernel(kind: Kind, name: str, bench: Bench) -> Iterator[Row]:
    """Keys that the kernel signs with, beside the bare syscall and ssh-agent."""
    check_kernel_signs()
    key = kind.key(bench.person)
    frame = sign_request(key)
    with (
        bench.holding("kagent", key, options=("--custody=kernel",)) as kagent,
        bench.holding("ssh-agent", key) as openssh,
    ):
        sign = _bare(key)
        ours, bare, theirs = bench.in_turn(
            lambda: one_client(kagent.socket, frame, kind.count),
            lambda: milliseconds(lambda: repeat(sign, kind.count)) / kind.count,
            lambda: one_client(openssh.socket, frame, kind.count),
        )
        what = f"{kind.name} in the kernel, one client"
        this = Series("kagent", ours)
        yield Row(name, what, "ms", this, Series("bare pkey_sign", bare), kind.one)
        yield Row(name, what, "ms", this, Series("ssh-agent", theirs))
        yield _first(bench, name, kind, frame, kagent, openssh)
        few, many, loops, stock = bench.in_turn(
            lambda: many_clients(kagent.socket, frame, FEW, kind.together // FEW),
            lambda: many_clients(kagent.socket, frame, MANY, kind.together // MANY),
            lambda: rate(_LOOPS, kind.count, lambda: lambda: repeat(sign, kind.count)),
            lambda: many_clients(openssh.socket, frame, FEW, kind.together // FEW),
        )
    beside, openssh_few = Series(f"{_LOOPS} bare loops", loops), Series("ssh-agent", stock)
    for clients, values, that, goal in (
        (FEW, few, beside, kind.many),
        (FEW, few, openssh_few, None),
        (MANY, many, beside, kind.many),
    ):
        what = f"{kind.name} in the kernel, {clients} clients"
        yield Row(name, what, "/s", Series("kagent", values), that, goal, clients)
    yield _no_worse(name, kind, few, many)


def check_kernel_signs() -> None:
    """Raises NotHere if this machine's kernel doesn't."""
    try:
        pkcs8.probe(join_anonymous_session())
    except pkcs8.CannotSign as error:
        raise NotHere(f"this kernel can't sign: {error}") from error


def over_clients(name: str, bench: Bench) -> Iterator[Row]:
    """Throughput over the number of clients: what the chart shows."""

    key = _ED25519.key(bench.person)
    frame = sign_request(key)
    with (
        bench.holding("kagent", key, options=("--custody=sealed",)) as kagent,
        bench.holding("ssh-agent", key) as openssh,
    ):
        taken = bench.in_turn(
            *(
                partial(many_clients, one.socket, frame, clients, _ED25519.together // clients)
                for clients in _CHARTED
                for one in (kagent, openssh)
            )
        )
    for clients, ours, theirs in zip(_CHARTED, taken[::2], taken[1::2], strict=True):
        pair = Series("kagent", ours), Series("ssh-agent", theirs)
        what = f"Ed25519, {clients} client{'s' if clients > 1 else ''}"
        yield Row(name, what, "/s", *pair, clients=clients)


def _first(bench: Bench, name: str, kind: Kind, frame: bytes, kagent: Agent, openssh: Agent) -> Row:
    """What a login waits for: kagent also learns who asks."""
    return bench.pair(
        name,
        f"{kind.name}, a connection's first",
        "ms",
        ("kagent", lambda: first_signature(kagent.socket, frame)),
        ("ssh-agent", lambda: first_signature(openssh.socket, frame)),
        times=3,
    )


def _no_worse(name: str, kind: Kind, few: tuple[float, ...], many: tuple[float, ...]) -> Row:
    pair = Series(f"kagent, {MANY} clients", many), Series(f"{FEW}", few)
    return Row(name, kind.name, "/s", *pair, Goal(1.0, at_least=True), MANY)


def _bare(key: Path) -> Work:
    """The syscall on the same key, in a keyring of our own, without anything around it."""
    form = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    der = load_ssh_private_key(key.read_bytes(), None).private_bytes(*form)
    held = AsymmetricKey.add("bare", der, join_anonymous_session())
    size, digest = held.limits(_INFO).max_sig_size, os.urandom(32)
    return lambda: syscalls.pkey_sign(held.serial, _INFO, digest, size)
