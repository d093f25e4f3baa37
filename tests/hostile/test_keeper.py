"""Whatever happens to other processes, the keeper goes on, and keeps what it was told to."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from kagent.custody.identity import Custody, Identity
from kagent.jobs.terms import Terms
from kagent.keeper.keeper import Keeper, _close_all_but
from kagent.protocol.constraints import Lifetime
from kagent.protocol.messages import (
    AddSmartcardKey,
    Extension,
    Failure,
    RemoveAllIdentities,
    RemoveIdentity,
    Success,
    encode,
)
from kagent.workers import sign
from tests.hostile.asking import Client, Pair
from tests.hostile.conftest import settle
from tests.support.injection import python_in
from tests.support.programs import Agent, Person, agent, children_of, wait_until
from tests.support.softhsm import LIBRARY, PIN, stand_in


@pytest.fixture
def kagent(person: Person) -> Iterator[Agent]:
    with agent(person) as running:
        settle(running)
        yield running


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_front_dies_with_its_workers_unread(kagent: Agent) -> None:
    """The keeper hears of its death late, when it has something to tell to it."""
    pair = Pair.new()
    with Client(kagent.socket) as client:
        assert client.add(pair)
        assert client.signs(pair)
    wait_until(lambda: kagent.signers)
    front, before = kagent.front, set(kagent.signers)
    os.kill(front, signal.SIGSTOP)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(kagent.signers) - before)
    [parent] = [pid for pid in kagent.children if set(children_of(pid)) & set(kagent.signers)]
    with stopped(kagent.keeper):
        os.kill(parent, signal.SIGSTOP)  # else it may be the one that hears of it
        os.kill(front, signal.SIGKILL)
        os.kill(kagent.keeper, signal.SIGUSR1)  # remove all, and so no sign workers any more
    with Client(kagent.socket) as client:
        assert not client.lists(pair)
    assert kagent.front != front


def limit(kagent: Agent, processes: str, of: str = "nproc") -> None:
    """As any program of the user can; and as a full machine does."""
    kagent.person.run("prlimit", "-p", str(kagent.keeper), f"--{of}={processes}:")


def test_a_front_dies_where_no_process_can_be_started(kagent: Agent) -> None:
    """There is another as soon as one can be."""
    pair, keeper, front = Pair.new(), kagent.keeper, kagent.front
    with Client(kagent.socket) as client:
        assert client.add(pair)
    most = kagent.person.run("prlimit", "-p", str(keeper), "--nproc", "-o", "SOFT", "--noheadings")
    limit(kagent, "1")
    os.kill(front, signal.SIGKILL)
    wait_until(lambda: "no front can be started" in kagent.logged())
    limit(kagent, most.stdout.strip())
    with Client(kagent.socket) as client:
        assert client.signs(pair)


@pytest.mark.parametrize("all_of_them", [False, True])
def test_what_has_waited_removes_nothing_from_a_locked_agent(
    kagent: Agent, all_of_them: bool
) -> None:
    one, other = Pair.new(), Pair.new()
    with (
        Client(kagent.socket) as first,
        Client(kagent.socket) as second,
        Client(kagent.socket) as owner,
    ):
        assert owner.add(one)
        assert owner.add(other)
        with stopped(kagent.keeper):
            for client, message in (
                (first, RemoveIdentity(one.blob)),
                (second, RemoveAllIdentities() if all_of_them else RemoveIdentity(other.blob)),
            ):
                client.send(message)
                for _ in range(2):  # by then the front has begun with that
                    owner.ask(Extension("query", b""))
            assert owner.lock()
        assert isinstance(first.answer(), Success)
        assert isinstance(second.answer(), Failure)
        assert owner.unlock()
        assert not owner.lists(one)
        assert owner.lists(other)


# As a front that was taken over could: with what it has.
SEND = """
import gc, os, socket
from kagent.jobs.jobs import Job, Kind
from kagent.custody.identity import Custody
[workers] = [one for one in gc.get_objects() if type(one).__name__ == "Workers"]
reading, writing = os.pipe2(os.O_NONBLOCK)
{before}
job = Job({job})
socket.send_fds(workers._keeper._socket, [job.pack() + {record!r}], [writing])
{after}
"""
FILL = """
try:
    while True:
        os.write(writing, bytes(4096))
except BlockingIOError:
    os.set_blocking(writing, True)
"""
ANSWERED = """
from kagent import log
os.set_blocking(reading, True)
log.info(f"the keeper answers {os.read(reading, 1000)}")
"""


def test_an_answer_that_nobody_reads(kagent: Agent) -> None:
    job = "Kind.DROP"
    python_in(kagent.front, SEND.format(before=FILL, job=job, record=b"", after=""))
    with Client(kagent.socket, seconds=10) as client:
        assert client.add(Pair.new())


def test_a_job_that_there_is_no_memory_for(kagent: Agent) -> None:
    """A record can be as long as a message."""
    pair = Pair.new()
    with Client(kagent.socket) as client:
        assert client.add(pair)
        limit(kagent, "1", of="as")
        long = "socket.send_fds(workers._keeper._socket, [job.pack() + bytes(200_000)], [writing])"
        python_in(kagent.front, SEND.format(before="", job="Kind.DROP", record=b"", after=long))
        wait_until(lambda: "there is no memory" in kagent.logged())
        limit(kagent, "unlimited", of="as")
        assert client.signs(pair)
        assert client.add(Pair.new())


@pytest.mark.parametrize("kind", ["KEEP", "GO_BACK"])
def test_a_lifetime_is_not_put_off(kagent: Agent, kind: str) -> None:
    """By who says that the key is held without, and has loaded none."""
    pair = Pair.new()
    with Client(kagent.socket) as client:
        assert client.add(pair, Lifetime(3))
        identity = Identity(pair.blob, "for ever", Custody.SEALED)
        job = f"Kind.{kind}, description={identity.description!r}, custody=Custody.SEALED"
        python_in(
            kagent.front,
            SEND.format(before="", job=job, record=identity.write(), after=ANSWERED),
        )
    wait_until(lambda: "the keeper answers" in kagent.logged())
    with Client(kagent.socket) as client:
        assert client.signs(pair)
        time.sleep(3.5)
        assert not client.signs(pair)


def test_no_end_of_keys_without_records(person: Person) -> None:
    """By who has a token's load under way, of which several keys may be kept."""
    env = {"SSH_PKCS11_HELPER": str(stand_in(person, "load-hang"))}
    with agent(person, env=env) as running, running.connect() as stream:
        settle(running)
        stream.sendall(encode(AddSmartcardKey(str(LIBRARY), PIN)))
        wait_until((person.home / "helper.pid").exists)
        job = "Kind.KEEP, number=1, description='kagent:any', custody=Custody.TOKEN"
        python_in(running.front, SEND.format(before="", job=job, record=b"", after=ANSWERED))
        wait_until(lambda: "the keeper answers" in running.logged())
        assert "there is no record of a key" in running.logged()


def test_no_key_comes_before_all_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes descriptors away meanwhile: what fails is done again."""
    monkeypatch.setattr(sign, "prepare", Mock(side_effect=OSError(errno.EMFILE, "too many")))
    keeper = Mock(_is_prepared=False, _terms=Terms())
    for _ in range(2):  # at each load anew
        with pytest.raises(OSError, match="too many"):
            Keeper._prepare(keeper)


def test_a_shelf_is_opened_anew(kagent: Agent) -> None:
    """For writing, as whoever has its descriptor could, and no filter."""
    pair = Pair.new()
    with Client(kagent.socket) as client:
        assert client.add(pair)
        wait_until(lambda: kagent.signers)
        [parent] = [pid for pid in kagent.children if set(children_of(pid)) & set(kagent.signers)]
        [shelf] = [
            one
            for one in Path(f"/proc/{parent}/fd").iterdir()
            if os.readlink(one).startswith("/memfd:")
        ]
        with open(os.open(shelf, os.O_RDWR), "r+b", buffering=0) as opened:
            with pytest.raises(PermissionError):
                opened.write(bytes(64))
            with pytest.raises(PermissionError):
                opened.truncate(0)
        assert client.signs(pair)


def test_a_lowered_limit_leaves_a_worker_no_descriptor() -> None:
    """Any program of the user can lower it, of the process that forks."""
    reading, writing = os.pipe()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    child = os.fork()
    if child == 0:
        try:
            far = os.dup2(writing, 200)
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, most[1]))
            _close_all_but([reading])
            os.fstat(reading)
            os._exit(Path(f"/proc/self/fd/{far}").exists())
        finally:
            os._exit(2)
    os.close(reading)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
