"""A log that nobody reads keeps nobody waiting."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kagent import log
from tests.hostile.asking import Client, Pair
from tests.support.programs import SECONDS, Person, wait_until

LOST = "lines were lost"


def fill(descriptor: int) -> None:
    """Leave no room in it, by a description of our own."""
    os.set_blocking(descriptor, False)
    for length in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(descriptor, bytes(length))
    os.set_blocking(descriptor, True)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nobody_reads_standard_error(person: Person, kind: str) -> None:
    """It goes on, and tells of it once there is room again."""
    if kind == "pipe":
        reading, writing = os.pipe()
        os.chown(f"/proc/self/fd/{writing}", person.uid, person.gid)
    else:
        pair = socket.socketpair()
        reading, writing = (one.detach() for one in pair)
    fill(writing)
    path = person.home / "full.sock"
    with person.start("kagent", "-D", "-a", path, stderr=writing, stdout=-3) as process:
        try:
            wait_until(path.exists)
            pair_of_keys = Pair.new()
            with Client(path) as client:
                assert client.add(pair_of_keys)
                assert client.signs(pair_of_keys)
                assert client.remove(pair_of_keys)
                assert not client.signs(pair_of_keys)
            # Who has passed the descriptor on has it as before.
            assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
            os.set_blocking(reading, False)
            with suppress(BlockingIOError):
                while os.read(reading, 1 << 20):
                    pass
            with Client(path) as client:
                assert not client.signs(pair_of_keys)
            assert LOST in os.read(reading, 1 << 20).decode()
        finally:
            process.terminate()
            process.wait(SECONDS)
            os.close(reading)
            os.close(writing)


@pytest.fixture
def daemon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The system log's, which is to read when the test does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "log"))
        listening.settimeout(SECONDS)
        monkeypatch.setattr(log, "_SYSTEM_LOG", str(folder / "log"))
        monkeypatch.setattr(log, "_confined", False)
        yield listening
        log.configure(to_stderr=True, verbose=False)


def test_nobody_reads_the_system_log(
    daemon: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its daemon is stopped."""
    monkeypatch.setattr(log, "_waits", False)
    log.configure(to_stderr=False, verbose=False, name="a test")
    for number in range(5000):
        log.error(f"line {number}")
    assert b"line 0" in daemon.recv(1000)
    daemon.setblocking(False)
    with suppress(BlockingIOError):
        while daemon.recv(1000):
            pass
    log.error("the last")
    assert LOST in daemon.recv(1000).decode()
    assert daemon.recv(1000).decode().endswith(f"a test[{os.getpid()}]: error: the last")


def test_who_is_no_agent_waits(daemon: socket.socket, folder: Path) -> None:
    """What kagent-provision has done is told, whoever fills the log."""
    log.configure(to_stderr=False, verbose=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        filling.connect(str(folder / "log"))
        with suppress(BlockingIOError):
            while filling.send(b"full"):
                pass
    telling = threading.Thread(target=log.info, args=["delivered"])
    telling.start()
    telling.join(0.2)  # else it would have been lost by then
    while (line := daemon.recv(1000)) == b"full":
        pass
    assert line.endswith(b"delivered")
    telling.join()


def test_no_descriptor_for_the_system_log(daemon: socket.socket) -> None:
    """It is no reason to end, and the log is heard once there is one."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most[1]))
    try:
        log.configure(to_stderr=False, verbose=False)
        log.error("that nobody hears")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    log.error("that is heard")
    assert daemon.recv(1000).endswith(b"that is heard")


def test_what_a_client_has_made_long_is_heard(daemon: socket.socket) -> None:
    """No name is so long that a line is lost for it, or ends in the middle of it."""
    log.configure(to_stderr=False, verbose=False)
    log.error(f"from {'ä' * 300_000} to here")
    line = daemon.recv(select.PIPE_BUF)
    assert b"error: from " in line
    assert line.endswith(b" to here")
    assert b"\\" not in line, "no half of a letter"
