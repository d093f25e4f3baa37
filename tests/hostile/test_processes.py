"""The agent's processes can't be looked into by their own user, and aren't weaker without means."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kagent.protocol.constraints import Confirm
from tests.hostile import stepping
from tests.hostile.asking import Client, Pair
from tests.hostile.people import CHECKOUT, Login, attack, finish
from tests.support.programs import SECONDS, Agent, Person, wait_until

# An interpreter that starts and does nothing.
BARE = "import resource, ctypes, re, signal, time\nprint(time.process_time_ns())\n"

Command = tuple[Path, tuple[str | Path, ...]]


def test_no_process_can_be_looked_into(attacked: Agent, client: Client, falls: bool) -> None:
    """Not the keeper, not the front, not a worker that lives for milliseconds."""
    with attack(attacked.person, Login.SAME, "inspect", attacked.keeper) as attacker:
        for _ in range(20):
            pair = Pair.new()
            client.add(pair)
            client.signs(pair)
            client.add(pair, Confirm())
            client.signs(pair)
        told = finish(attacker)
    processes, *got = told.got
    print(told.tries, processes)
    assert bool(got) == falls, got


def test_what_was_opened_at_the_start(person: Person, command: Command, falls: bool) -> None:
    """The interpreter's own start can't be helped: until then any program of the user's may.

    From its first line on kagent can't be looked into; and through what was opened by then only the
    process that was started, never the keeper.
    """
    path, words = command
    bare = person.home / "bare"
    person.file("bare", BARE)
    needed = int(person.run(sys.executable, bare).stdout)
    stopped = ("sh", "-c", 'kill -STOP $$; exec "$0" "$@"', *words)
    with person.start(*stopped, env={"PYTHONPATH": str(CHECKOUT)}) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with attack(person, Login.SAME, "hold", process.pid) as attacker:
            try:
                os.kill(process.pid, signal.SIGCONT)
                wait_until(path.exists)
                with Client(path) as client:
                    assert client.add(Pair.new())
                keeper = Agent(person, process, path, path).keeper
                told = finish(attacker)
            finally:
                process.kill()
    last, still, *read = map(int, told.got)
    print(f"{told.tries} tries; open until {last / 1e6} ms of run time; {read} can be read")
    print(f"a bare Python has {needed / 1e6} ms")
    assert bool(still) == falls
    assert falls or last < 2 * needed
    assert process.pid in read, "it was opened in time"
    assert (keeper in read) == falls


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("how", ["-D", "-s"])
def test_a_debugger_that_is_attached_at_the_start(person: Person, how: str, attached: bool) -> None:
    """It stays so, and the agent doesn't start, also where its fork would be rid of it."""
    pipe, path = subprocess.PIPE, person.home / "agent.sock"
    waiting = ("sh", "-c", 'read line; exec "$0" "$@"', "kagent", how, "-a", path)
    with person.start(*waiting, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if attached:
            stepping._request(stepping._SEIZE, process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        said = process.stdout.readline()
        if attached:
            assert "is attached to kagent" in said
            assert process.wait(SECONDS) == 1
        else:
            while not (pid := re.search(r"Agent pid (\d+)", said)):
                said = process.stdout.readline()
            os.kill(int(pid[1]), signal.SIGTERM)
        wait_until(lambda: not path.exists())


WITHOUT = {
    "locked memory": ("MEMLOCK",),
    "files": ("NOFILE",),
    "memory": ("AS", "DATA", "STACK"),
    "processes": ("NPROC", "SIGPENDING", "MSGQUEUE", "FSIZE", "RSS", "CORE"),
}


@pytest.mark.parametrize("what", WITHOUT)
def test_without_means(attacked: Agent, falls: bool, what: str) -> None:
    """A key is refused, or held as it was asked for; and what is missing is said."""
    names = WITHOUT[what]
    pair, held, signed = Pair.new(), False, False
    with (
        attack(attacked.person, Login.SAME, "limit", attacked.keeper, *names) as attacker,
        suppress(OSError),  # that the agent ends is no weakness
        Client(attacked.socket, seconds=5) as client,
    ):
        held = client.add(pair, Confirm())
        signed = client.signs(pair)
        finish(attacker)
    assert not signed
    if what == "locked memory":
        said = "RLIMIT_MEMLOCK" in attacked.logged()
        assert (held and not said) == falls
