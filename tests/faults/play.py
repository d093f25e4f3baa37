"""Operations of an agent that meet a fault, and what has to be true of it after that."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from kagent.jobs.roles import CHILDREN, FOREGROUND, KEEPER
from kagent.private.verify import BadSignature, verify
from kagent.protocol import messages
from kagent.protocol.constraints import Confirm, Constraint, Lifetime
from kagent.protocol.messages import (
    AddIdConstrained,
    AddIdentity,
    IdentitiesAnswer,
    Message,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SignResponse,
    Success,
    Unlock,
)
from kagent.protocol.publickey import PublicKey
from kagent.protocol.wire import ProtocolError
from tests.hostile.asking import PAIRS, Client, Pair, sign
from tests.support.programs import (
    Agent,
    Person,
    agent,
    children_of,
    is_running,
    wait_until,
)

from .injector import Injector, Step, injecting

_MOST_INBOXES = 2  # empty keyrings, which the keeper has for the next loads
_MOST_WORKERS = 2  # sockets to sign workers that have ended, or wait
_PATIENCE = 20.0  # seconds until nothing is left over
_LIFETIME = 2  # seconds
_SECONDS = 15.0  # for an answer


class Broken(Exception):
    """Something isn't true that has to be."""


def demand(truth: object, otherwise: str) -> None:
    """Raises Broken."""
    if not truth:
        raise Broken(otherwise)


class Use(NamedTuple):
    """What an agent has in use: processes by name, descriptors of its keeper and its front, and
    keys of its user in the kernel."""

    processes: Counter[str]
    keeper: int
    front: int
    keys: int

    @classmethod
    def of(cls, agent: Agent) -> Use:
        """Now.  As root."""
        pids = processes_of(agent.process.pid)
        names: Counter[str] = Counter()
        descriptors: Counter[str] = Counter()
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                names[name] += 1
                descriptors[name] += len(os.listdir(f"/proc/{pid}/fd"))
        users = Path("/proc/key-users").read_text()
        keys = re.search(rf"^ *{agent.person.uid}: +\d+ (\d+)/", users, re.MULTILINE)
        return cls(
            names,
            descriptors["kagent-keeper"],
            descriptors["kagent-front"],
            int(keys[1]) if keys else 0,
        )

    def beyond(self, before: Use) -> str:
        """What is more than it was, in words; "" if nothing is."""
        more = [str(name) for name in (self.processes - before.processes)]
        if self.keeper > before.keeper:
            more.append(f"{self.keeper - before.keeper} descriptors of the keeper")
        if self.front > before.front + _MOST_WORKERS:
            more.append(f"{self.front - before.front} descriptors of the front")
        if self.keys > before.keys + _MOST_INBOXES:
            more.append(f"{self.keys - before.keys} keys")
        return ", ".join(more)


def processes_of(pid: int) -> list[int]:
    """It, its children, theirs, and so on."""
    return [pid, *(one for child in children_of(pid) for one in processes_of(child))]


class Stand:
    """An agent that is put to it, with keys that it holds all the time; another when it has ended.

    `kept` are keys without constraints, one of each custody.
    """

    def __init__(self, person: Person, env: dict[str, str] | None = None) -> None:
        """`env` is for kagent."""
        self.person = person
        self._env = env
        self.kept = [make() for make in PAIRS.values()]
        self.agent: Agent
        self.log: Path  # of the agent that has met the last fault
        self._stack = ExitStack()
        self.started = 0
        self.ending: list[tuple[float, Pair]] = []  # keys with a lifetime, and when it is over
        self.start()

    def start(self) -> None:
        """Another agent, with the same keys."""
        self.started += 1
        self.ending.clear()
        self.agent = self._stack.enter_context(agent(self.person, env=self._env))
        self._keeper = self.agent.keeper
        for pair in self.kept:
            with self.client() as client:
                wait_until(lambda pair=pair: client.add(pair), 10)  # type: ignore[misc]
        with self.client() as client:
            for pair in self.kept:
                wait_until(lambda pair=pair: client.signs(pair), 10)  # type: ignore[misc]
            spare = Pair.new()
            assert client.add(spare)
            assert client.remove(spare)
        # What is prepared in quiet moments is there when it has been quiet for some.
        last: Use | None = None
        while last != (now := Use.of(self.agent)) or "kagent-lookout" not in now.processes:
            with self.client() as client:
                client.signs(self.kept[0])
            last = now
            time.sleep(0.2)
        self.use = now
        self.injector: Injector = self._stack.enter_context(injecting(self.agent.process.pid))

    def stop(self) -> None:
        """Have none any more."""
        self._stack.close()

    def said(self) -> list[str]:
        """The last that the agent has logged."""
        return self.log.read_text().splitlines()[-8:]

    def client(self) -> Client:
        """A connection."""
        return Client(self.agent.socket, _SECONDS)

    @property
    def ended(self) -> bool:
        return not is_running(self._keeper)

    def gone(self) -> int:
        """That all of an agent goes with its keeper; its exit code.  Raises Broken."""
        deadline = time.monotonic() + _PATIENCE
        while (left := _of_user(self.person)) and time.monotonic() < deadline:
            time.sleep(0.05)
        demand(not left, f"processes are left: {left}")
        process = self.agent.process
        self._stack.close()
        return process.returncode

    def whole(self) -> None:
        """What has to be true at any time.  Raises Broken."""
        with self.client() as client:
            answer = client.ask(RequestIdentities())
            demand(isinstance(answer, IdentitiesAnswer), f"a list is answered by {answer}")
            assert isinstance(answer, IdentitiesAnswer)
            listed = {one.blob for one in answer.identities}
            for pair in self.kept:
                demand(pair.blob in listed, f"a key is lost: {pair.private.type}")
                demand(signs(client, pair), f"a key doesn't sign any more: {pair.private.type}")
            now = time.monotonic()
            for end, pair in list(self.ending):
                if now > end:
                    demand(pair.blob not in listed, "a key is listed after its time")
                    demand(not signs(client, pair), "a key signs after its time")
                    self.ending.remove((end, pair))
        deadline = time.monotonic() + _PATIENCE
        while (more := Use.of(self.agent).beyond(self.use)) and time.monotonic() < deadline:
            time.sleep(0.02)
        demand(not more, f"left over: {more}")


def _of_user(person: Person) -> list[str]:
    """The names of that user's processes."""
    names = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if _uid(folder) == person.uid and is_running(int(folder.name)):
                names.append((folder / "comm").read_text().strip())
    return names


def _uid(folder: Path) -> int:
    found = re.search(r"^Uid:\s+\d+\s+(\d+)", (folder / "status").read_text(), re.MULTILINE)
    return int(found[1]) if found else -1


def signs(client: Client, pair: Pair) -> bool:
    """Whether it signs.  Raises Broken if that is by something else."""
    data = os.urandom(32)
    return signed(pair, data, client.ask(sign(pair, data)))


def signed(pair: Pair, data: bytes, answer: Message | None) -> bool:
    """As `signs`, of an answer."""
    if not isinstance(answer, SignResponse):
        return False
    try:
        verify(PublicKey.parse(pair.blob), answer.signature, data)
    except (BadSignature, ProtocolError) as error:
        raise Broken(f"a wrong signature: {error}") from error
    return True


class Program(NamedTuple):
    """One that asks the agent; what it gives at its end is taken for the agent's answer."""

    words: tuple[str | Path, ...]


Request: TypeAlias = Message | Program
# It prepares, gives the request, takes the answer, and looks at what has become of it.
Operation: TypeAlias = Callable[[Stand], Generator[Request, Message | None, None]]


def _add(pair: Pair, *constraints: Constraint) -> Message:
    if constraints:
        return AddIdConstrained(pair.private, "a key", constraints)
    return AddIdentity(pair.private, "a key")


def _load(kind: str, *constraints: Constraint, program: bool = False) -> Operation:
    """With `program` by kagent-add."""

    def play(stand: Stand) -> Generator[Request, Message | None, None]:
        pair = PAIRS[kind]()
        over = time.monotonic() + _LIFETIME
        if program:
            path = stand.person.file("key", pair.file)
            answer = yield Program(("kagent-add", "-q", path))
        else:
            answer = yield _add(pair, *constraints)
        lives = any(isinstance(one, Lifetime) for one in constraints)
        with stand.client() as client:
            listed, signing = client.lists(pair), signs(client, pair)
            if any(isinstance(one, Confirm) for one in constraints):
                demand(not signing, "a key signs without a question")
                signing = listed
            if isinstance(answer, Success):
                gone = lives and time.monotonic() > over
                demand(gone or (listed and signing), f"held, but {listed=} {signing=}")
            elif answer is not None:
                demand(not listed and not signing, f"refused, but {listed=} {signing=}")
            elif not lives:
                demand(listed == signing, f"cut off, but {listed=} {signing=}")
            if lives:
                stand.ending.append((time.monotonic() + _LIFETIME, pair))
            elif listed:
                demand(client.remove(pair), "it can't be removed")
                demand(not client.lists(pair), "removed, but it is listed")
                demand(not signs(client, pair), "removed, but it signs")

    return play


def _reload(kind: str) -> Operation:
    """A key that is held is to be asked about from now on."""

    def play(stand: Stand) -> Generator[Request, Message | None, None]:
        pair = PAIRS[kind]()
        with stand.client() as client:
            demand(client.add(pair), "it can't be loaded")
        answer = yield _add(pair, Confirm())
        with stand.client() as client:
            demand(client.lists(pair), "a key is lost that was loaded again")
            signing = signs(client, pair)
            if isinstance(answer, Success):
                demand(not signing, "a key signs without a question")
            elif answer is not None:
                demand(signing, "refused, but it doesn't sign as before")
            demand(client.remove(pair), "it can't be removed")
            demand(not client.lists(pair), "removed, but it is listed")
            demand(not signs(client, pair), "removed, but it signs")

    return play


def _sign(kind: int) -> Operation:
    def play(stand: Stand) -> Generator[Request, Message | None, None]:
        pair, data = stand.kept[kind], os.urandom(32)
        answer = yield sign(pair, data)
        signed(pair, data, answer)

    return play


def _sign_asked(stand: Stand) -> Generator[Request, Message | None, None]:
    """By a key that is to be asked about, and nobody says yes."""
    pair = Pair.new()
    with stand.client() as client:
        demand(client.add(pair, Confirm()), "it can't be loaded")
    answer = yield sign(pair)
    demand(not isinstance(answer, SignResponse), "a key signs without a question")
    with stand.client() as client:
        demand(client.lists(pair), "a key is lost")
        demand(not signs(client, pair), "a key signs without a question")
        demand(client.remove(pair), "it can't be removed")


def _list(stand: Stand) -> Generator[Request, Message | None, None]:
    answer = yield RequestIdentities()
    if isinstance(answer, IdentitiesAnswer):
        listed = {one.blob for one in answer.identities}
        demand(all(pair.blob in listed for pair in stand.kept), "a list isn't whole")


def _remove(kind: str) -> Operation:
    def play(stand: Stand) -> Generator[Request, Message | None, None]:
        pair = PAIRS[kind]()
        with stand.client() as client:
            demand(client.add(pair), "it can't be loaded")
        answer = yield RemoveIdentity(pair.blob)
        with stand.client() as client:
            listed, signing = client.lists(pair), signs(client, pair)
            if isinstance(answer, Success):
                demand(not listed and not signing, f"removed, but {listed=} {signing=}")
            else:
                demand(listed == signing, f"not removed, but {listed=} {signing=}")
            if listed:
                demand(client.remove(pair), "it can't be removed")
                demand(not signs(client, pair), "removed, but it signs")

    return play


def _remove_all(stand: Stand) -> Generator[Request, Message | None, None]:
    answer = yield RemoveAllIdentities()
    with stand.client() as client:
        for pair in stand.kept:
            listed, signing = client.lists(pair), signs(client, pair)
            if isinstance(answer, Success):
                demand(not listed and not signing, f"removed, but {listed=} {signing=}")
            else:
                demand(listed == signing, f"not removed, but {listed=} {signing=}")
        if not isinstance(answer, Success):
            demand(client.remove_all(), "they can't be removed")
        for pair in stand.kept:
            demand(not signs(client, pair), "removed, but it signs")
        for pair in stand.kept:
            demand(client.add(pair), "it can't be loaded again")
        stand.ending.clear()


def _lock(stand: Stand) -> Generator[Request, Message | None, None]:
    answer = yield messages.Lock(b"mine")
    with stand.client() as client:
        signing = [signs(client, pair) for pair in stand.kept]
        listed = [client.lists(pair) for pair in stand.kept]
        told = f"{listed=} {signing=}"
        if isinstance(answer, Success):
            demand(not any(signing + listed), f"locked, but {told}")
        else:
            demand(all(signing + listed) or not any(signing + listed), f"not locked, but {told}")
        if not any(listed):
            demand(client.unlock(), "it can't be unlocked")


def _unlock(stand: Stand) -> Generator[Request, Message | None, None]:
    with stand.client() as client:
        demand(client.lock(), "it can't be locked")
    answer = yield Unlock(b"mine")
    with stand.client() as client:
        signing = [signs(client, pair) for pair in stand.kept]
        listed = [client.lists(pair) for pair in stand.kept]
        told = f"{listed=} {signing=}"
        if isinstance(answer, Success):
            demand(all(signing + listed), f"unlocked, but {told}")
        else:
            demand(all(signing + listed) or not any(signing + listed), f"not unlocked, but {told}")
        if not any(listed):
            demand(client.unlock(), "it can't be unlocked")


_CUSTODIES = {"ed25519": "sealed", "rsa": "kernel"}

OPERATIONS: dict[str, Operation] = {
    **{f"load-{_CUSTODIES[kind]}": _load(kind) for kind in PAIRS},
    "load-lifetime": _load("ed25519", Lifetime(_LIFETIME)),
    "load-confirm": _load("ed25519", Confirm()),
    **{f"reload-{_CUSTODIES[kind]}": _reload(kind) for kind in PAIRS},
    **{f"sign-{_CUSTODIES[kind]}": _sign(number) for number, kind in enumerate(PAIRS)},
    "sign-confirm": _sign_asked,
    "kagent-add": _load("ed25519", program=True),
    "list": _list,
    **{f"remove-{_CUSTODIES[kind]}": _remove(kind) for kind in PAIRS},
    "remove-all": _remove_all,
    "lock": _lock,
    "unlock": _unlock,
}


class Plan(NamedTuple):
    """A fault that an operation meets at a step; if it is `lasting` at all steps from there on."""

    operation: str
    fault: str = ""
    step: Step | None = None
    lasting: bool = False


def steps_of(stand: Stand, operation: str) -> list[Step]:
    """Those of an operation that meets no fault, which it is played twice for."""
    steps: list[Step] = []
    for _ in range(2):
        steps = _played(stand, Plan(operation))
    # A program that hasn't asked for anything yet can do no harm.
    own = {step.role for step in steps} - _ROLES
    connects = [at for at, step in enumerate(steps) if step.role in own and step.call == "connect"]
    return [step for at, step in enumerate(steps) if step.role not in own or at >= min(connects)]


_ROLES = {role.name.removeprefix("kagent-") for role in (*CHILDREN, KEEPER, FOREGROUND)} | {"fork"}


@contextmanager
def _asking(stand: Stand, program: Program) -> Iterator[Callable[[], Message | None]]:
    """Have it about to start, and held by the injector; what it waits for and gives."""
    script = 'kill -STOP $$; exec "$@"'
    environment = {"SSH_AUTH_SOCK": str(stand.agent.socket)}
    quiet: dict[str, object] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = ("sh", "-c", script, "sh", *program.words)
    with stand.person.start(*words, env=environment, **quiet) as process:
        try:
            state = Path(f"/proc/{process.pid}/stat")
            wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
            stand.injector.seize(process.pid)

            def end() -> Message | None:
                process.send_signal(signal.SIGCONT)
                try:
                    code = process.wait(_SECONDS)
                except subprocess.TimeoutExpired as error:
                    raise Broken("the program hangs") from error
                return Success() if code == 0 else None

            yield end
        finally:
            process.kill()


def _played(stand: Stand, plan: Plan) -> list[Step]:
    playing = OPERATIONS[plan.operation](stand)
    request = next(playing)
    answer: Message | None = None
    with ExitStack() as stack:
        client = stack.enter_context(stand.client())
        client.ask(RequestIdentities())  # until it serves this one
        ask = client.answer
        if isinstance(request, Program):
            ask = stack.enter_context(_asking(stand, request))
        stand.injector.disarm()
        stand.injector.arm(plan.fault, plan.step, lasting=plan.lasting)
        with suppress(BrokenPipeError):  # it has ended already
            if not isinstance(request, Program):
                client.send(request)
        try:
            answer = ask()
        except TimeoutError as error:
            raise Broken("there is no answer") from error
        steps = stand.injector.disarm()
    if not stand.ended:
        with suppress(StopIteration):
            playing.send(answer)
    return steps


def play(stand: Stand, plan: Plan) -> Step | None:
    """Play an operation with that fault, and look at all that has to be true; the step that met it.

    None if none did.  Raises Broken.
    """
    stand.log = stand.agent.log
    try:
        _played(stand, plan)
    except (TimeoutError, AssertionError) as error:
        if not stand.ended:
            raise Broken("the agent doesn't answer") from error
    met = stand.injector.met
    if stand.ended:
        killed = plan.fault == "kill" and plan.step and plan.step.role in ("keeper", "kagent")
        code = stand.gone()
        stand.start()
        demand(killed, f"the agent has ended, with {code}")
    else:
        try:
            stand.whole()
        except (TimeoutError, AssertionError) as error:
            raise Broken("the agent doesn't answer") from error
    return met
