"""How long it takes until something is there: an agent, its first answer, a command's."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.programs import SECONDS, Agent

from .figures import Goal, Row, Series
from .running import Bench, Client, WentWrong, milliseconds, sign_request
from .signatures import SEALED

# A front that has lived for less than a second is started again after a pause.
_LONG_LIFE = 1.2


def start(name: str, bench: Bench) -> Iterator[Row]:
    """An agent that starts a command, which ends at once."""

    def run(*command: str) -> float:
        return milliseconds(lambda: bench.person.run(*command))

    yield bench.pair(
        name,
        "start and end of an agent",
        "ms",
        # -T, since of OpenSSH's only those before 10.1 have their socket below /tmp by default.
        ("kagent -T true", lambda: run("kagent", "-T", "true")),
        ("ssh-agent true", lambda: run("ssh-agent", "true")),
        Goal(3),
        times=2,
    )


def activation(name: str, bench: Bench) -> Iterator[Row]:
    """From a client's start to its end, where its connection has kagent started.

    As with systemd's socket, but without systemd's own time.
    """
    [taken] = bench.in_turn(lambda: _first_listing(bench))
    what, goal = "socket activation", Goal(150, of_value=True)
    yield Row(name, what, "ms", Series("first ssh-add -l", taken), goal=goal)


def front(name: str, bench: Bench) -> Iterator[Row]:
    """From the end of a front by force to the next signature."""
    key = SEALED["ed25519"].key(bench.person)
    with bench.holding("kagent", key, options=("--custody=sealed",)) as kagent:
        frame = sign_request(key)
        [taken] = bench.in_turn(lambda: _signature_after_kill(kagent, frame))
    what, goal = "kill -9 of the front", Goal(100, of_value=True)
    yield Row(name, what, "ms", Series("first signature after it", taken), goal=goal)


def command(name: str, bench: Bench) -> Iterator[Row]:
    """The command that is typed most."""
    with bench.holding("kagent", SEALED["ed25519"].key(bench.person)) as kagent:
        yield bench.pair(
            name,
            "a listing",
            "ms",
            ("kagent-add -l", lambda: milliseconds(lambda: kagent.run("kagent-add", "-l"))),
            ("ssh-add -l", lambda: milliseconds(lambda: kagent.run("ssh-add", "-l"))),
            Goal(60, of_value=True),
            times=2,
        )


@contextmanager
def service(
    bench: Bench, listener: socket.socket, idle_exit: str
) -> Iterator[subprocess.Popen[str]]:
    """kagent as systemd starts it, with its socket as descriptor 3, until the block ends."""
    shell = 'LISTEN_PID=$$ exec kagent -D --idle-exit "$0" 3<&0 </dev/null'
    with bench.person.start(
        *("sh", "-c", shell, idle_exit),
        env={"LISTEN_FDS": "1"},
        stdin=listener,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def listening(bench: Bench) -> Iterator[socket.socket]:
    """A socket that is there before there is an agent."""
    path = bench.person.home / "service.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        try:
            yield listener
        finally:
            path.unlink()


def _first_listing(bench: Bench) -> float:
    with listening(bench) as listener:
        begin = time.perf_counter()
        with bench.person.start(
            *("ssh-add", "-l"),
            env={"SSH_AUTH_SOCK": listener.getsockname()},
            stdout=subprocess.DEVNULL,
        ) as client:
            try:
                select.select([listener], [], [], SECONDS)
                with service(bench, listener, "60s"):
                    code = client.wait(SECONDS)
                    taken = (time.perf_counter() - begin) * 1000
            finally:
                client.kill()
    if code != 1:  # there are no identities
        raise WentWrong(f"ssh-add -l ended with {code}")
    return taken


def _signature_after_kill(kagent: Agent, frame: bytes) -> float:
    with Client(kagent.socket) as client:
        client.sign(frame)  # so that there is a lookout, as mostly
    front = kagent.front
    time.sleep(_LONG_LIFE)
    begin = time.perf_counter()
    os.kill(front, signal.SIGKILL)
    while time.perf_counter() - begin < SECONDS:
        try:
            with Client(kagent.socket) as client:
                client.sign(frame)
        except (WentWrong, ConnectionError):
            time.sleep(0.002)
        else:
            return (time.perf_counter() - begin) * 1000
    raise WentWrong("no signature by the front that came after one that was killed")
