"""A sign worker goes on for one burst, and with what is still held.

Asked as the front asks it, of keys that the test holds: so that each moment can be chosen.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from kagent.custody import clock
from kagent.custody.identity import description_of
from kagent.custody.rings import make_sealing_key, sealing_key
from kagent.custody.shelf import OwnShelf
from kagent.jobs.jobs import Answer, Refused, Signed, SignJob, unpack_answer
from kagent.jobs.terms import BURST
from kagent.keyctl import join_anonymous_session
from kagent.private.library import library_key
from kagent.private.sealed import ParsedKey, seal
from kagent.protocol.constraints import Lifetime
from kagent.protocol.wire import STRING, TEXT, Reader
from kagent.prove.memory import Search
from kagent.prove.needles import Needles
from kagent.workers import sign as sign_worker
from kagent.workers.sign import Safe, Worker
from tests.hostile.asking import Client, Pair
from tests.hostile.conftest import settle
from tests.support.programs import Person, agent, wait_until

ENDLESS = 3600 * clock.SECOND
SPAN = 2  # seconds, in which a busy machine loads a key and signs
DATA = b"to be signed"


class Held:
    """Sealed keys, as the keeper has them."""

    def __init__(self) -> None:
        self.keyring = join_anonymous_session()
        self.shelf = OwnShelf()
        make_sealing_key(self.keyring)

    def hold(self, pair: Pair, under: Pair | None = None) -> None:
        """Seal a key, as that of the identity `under` if that is another."""
        description = description_of((under or pair).blob)
        self.shelf.put(description, seal(sealing_key(self.keyring), description, pair.der))


class Signer:
    """A sign worker, and its end of the socket as the front has it."""

    def __init__(self, held: Held, burst: int, prepare: Callable[[], object]) -> None:
        self.stream, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.stream.close()
                prepare()
                Worker(theirs, Safe(held.keyring, held.shelf.reader), burst).work()
                os._exit(0)
            finally:
                os._exit(1)
        theirs.close()

    def send(self, pair: Pair) -> None:
        self.stream.send(SignJob(description_of(pair.blob), pair.private.type, DATA).pack())

    def answer(self) -> Answer | None:
        """None if it has ended."""
        try:
            return unpack_answer(self.stream.recv(4096))
        except ConnectionResetError:
            return None

    def ask(self, pair: Pair) -> Answer | None:
        with suppress(BrokenPipeError):
            self.send(pair)
        return self.answer()

    def stop(self) -> bool:
        """Stop it; False if it has ended before."""
        os.kill(self.pid, signal.SIGSTOP)
        return os.WIFSTOPPED(os.waitpid(self.pid, os.WUNTRACED)[1])

    def end(self) -> None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.stream.close()


@contextmanager
def signing(
    held: Held, burst: int = BURST, prepare: Callable[[], object] = lambda: None
) -> Iterator[Signer]:
    """A worker that waits, until the block ends; `prepare` is called in its process."""
    signer = Signer(held, burst, prepare)
    try:
        yield signer
    finally:
        signer.end()


@pytest.fixture
def held() -> Held:
    return Held()


def is_by(answer: Answer | None, pair: Pair) -> bool:
    assert isinstance(answer, Signed), answer
    reader = Reader(answer.signature)
    TEXT.read(reader)
    public = library_key(pair.private).public_key()
    public.verify(STRING.read(reader), DATA)  # type: ignore[union-attr,call-arg,arg-type]
    return True


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that this test forks wait for requests as long as a busy machine takes."""
    monkeypatch.setattr(sign_worker, "_LINGER", ENDLESS)


@pytest.fixture
def _unhurried(_patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And they sign for the first time as late as it gets to that."""
    monkeypatch.setattr(sign_worker, "BURST", ENDLESS)


@pytest.mark.usefixtures("_unhurried")
def test_requests_without_end(held: Held) -> None:
    """They don't keep a worker that has seen a key: it ends in the middle of them."""
    pair = Pair.new()
    held.hold(pair)
    with signing(held) as signer, signing(held, ENDLESS) as control:
        started = time.monotonic()
        assert isinstance(signer.ask(pair), Signed)
        while signer.ask(pair):
            assert time.monotonic() < started + 10
        assert all(isinstance(control.ask(pair), Signed) for _ in range(10))


@pytest.mark.usefixtures("_unhurried")
def test_answers_that_nobody_reads(held: Held) -> None:
    """Nor does it wait until somebody does."""
    pair = Pair.new()
    held.hold(pair)

    def narrow() -> None:
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)

    with signing(held, prepare=narrow) as signer:
        for _ in range(50):
            with suppress(BrokenPipeError):
                signer.send(pair)
        wait_until(lambda: os.waitid(os.P_PID, signer.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))


@pytest.mark.usefixtures("_unhurried")
@pytest.mark.parametrize("burst", [BURST, ENDLESS], ids=["a burst", "control"])
def test_stopped_between_two_signatures(held: Held, burst: int) -> None:
    """For longer than its burst: it must end, not sign, when it goes on."""
    pair = Pair.new()
    held.hold(pair)
    stopped = False
    while not stopped:  # else it has ended first
        with signing(held, burst) as signer:
            assert isinstance(signer.ask(pair), Signed)
            stopped = signer.stop()
            if stopped:
                time.sleep(1.5 * BURST / clock.SECOND)
                signer.send(pair)
                os.kill(signer.pid, signal.SIGCONT)
                signed = isinstance(signer.answer(), Signed)
    assert signed == (burst != BURST)


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("seconds", [0.0, 1.5 * BURST / clock.SECOND], ids=["control", "a burst"])
@pytest.mark.parametrize("number", [1, 2])
def test_stopped_when_it_has_the_key(held: Held, number: int, seconds: float) -> None:
    """The same, at its worst moment."""
    pair = Pair.new()
    held.hold(pair)
    looks = 0

    def stop_when_it_reads() -> None:
        def current(worker: Worker, description: str) -> ParsedKey:
            nonlocal looks
            key = original(worker, description)
            looks += 1
            if looks == number:
                os.kill(os.getpid(), signal.SIGSTOP)
            return key

        original, Worker._current = Worker._current, current  # type: ignore[method-assign]

    burst = BURST if seconds else ENDLESS
    with signing(held, burst, stop_when_it_reads) as signer:
        if number == 2:
            signer.ask(pair)
        signer.send(pair)
        _, status = os.waitpid(signer.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            pytest.skip("its burst was over before it was asked: a busy machine")
        time.sleep(seconds)
        os.kill(signer.pid, signal.SIGCONT)
        assert isinstance(signer.answer(), Signed) != bool(seconds)


ENDS: dict[str, Callable[[OwnShelf, str], object]] = {
    "removed": lambda shelf, description: shelf.remove(description),
    "damaged": lambda shelf, description: shelf.put(description, bytes(80)),
}


@pytest.mark.usefixtures("_unhurried")
@pytest.mark.parametrize("what", ENDS)
def test_a_key_that_is_gone_signs_nothing_more(held: Held, what: str) -> None:
    """Whatever is kept of it; and the other goes on."""
    pair, other = Pair.new(), Pair.new()
    held.hold(pair)
    held.hold(other)
    with signing(held, ENDLESS) as signer:
        for _ in range(2):
            assert is_by(signer.ask(pair), pair)
        ENDS[what](held.shelf, description_of(pair.blob))
        assert isinstance(signer.ask(pair), Refused)
        assert is_by(signer.ask(other), other)
        assert isinstance(signer.ask(pair), Refused)


@pytest.mark.usefixtures("_unhurried")
def test_a_key_that_was_loaded_anew(held: Held) -> None:
    """What is held signs, and not what is kept."""
    pair, other = Pair.new(), Pair.new()
    with signing(held, ENDLESS) as signer:
        held.hold(pair)
        assert is_by(signer.ask(pair), pair)
        held.hold(other, under=pair)
        assert is_by(signer.ask(pair), other)


@pytest.mark.usefixtures("_unhurried")
def test_of_the_first_key_nothing_is_left_for_the_second(held: Held) -> None:
    """Its request comes while the first key is there; when it is answered, that one is not."""
    with signing(held, ENDLESS) as signer:  # before this process has them
        pair, other = Pair.new(), Pair.new()
        held.hold(pair)
        held.hold(other)
        search = Search(Needles({"the first": pair.private.key}))  # type: ignore[dict-item]
        assert is_by(signer.ask(pair), pair)
        assert search.look(signer.pid).found  # the control
        signer.send(pair)
        signer.send(other)
        assert is_by(signer.answer(), pair)
        assert is_by(signer.answer(), other)
        assert not search.look(signer.pid).found
        assert is_by(signer.ask(pair), pair)


@pytest.mark.usefixtures("_unhurried")
def test_one_signature_a_process(held: Held) -> None:
    pair = Pair.new()
    held.hold(pair)
    with signing(held, burst=0) as signer:
        assert is_by(signer.ask(pair), pair)
        assert signer.ask(pair) is None


MEANWHILE: dict[str, Callable[[Client, Pair], object]] = {
    "locked": lambda client, pair: client.lock(),
    "removed": lambda client, pair: client.remove(pair),
    "all removed": lambda client, pair: client.remove_all(),
    "expired": lambda client, pair: time.sleep(SPAN),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_in_the_middle_of_a_burst(person: Person, what: str) -> None:
    """The same by way of the agent."""
    pair, other = Pair.new(), Pair.new()
    lifetime = [Lifetime(SPAN)] if what == "expired" else []
    with agent(person) as running:
        settle(running)
        with Client(running.socket) as client, Client(running.socket) as changing:
            assert client.add(other)
            begun = time.monotonic()
            assert client.add(pair, *lifetime)
            signed = all(client.signs(one) for one in (pair, other) * 5)
            assert signed or (lifetime and time.monotonic() - begun > SPAN)  # a loaded machine
            MEANWHILE[what](changing, pair)
            assert not client.signs(pair)
            assert client.signs(other) == (what in ("removed", "expired"))
