"""A load worker that was taken over, by the one key that it reads, reaches nothing that is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import SignRequest
from kagent.protocol.privatekey import PRIVATE_KEY
from kagent.protocol.wire import STRING, TEXT
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.conftest import settle
from tests.support import frames
from tests.support.frames import A_KEY
from tests.support.injection import python_in
from tests.support.programs import Agent, Person, agent, children_of, wait_until
from tests.support.softhsm import copy_of_library
from tests.support.token_keys import sk_ed25519

SSHSIG = (
    b"SSHSIG" + TEXT.write("file") + TEXT.write("") + TEXT.write("sha512") + STRING.write(bytes(64))
)

# Its end, and what it has handed over, say that it brings what `left` says; its answer, whatever it
# likes of whatever key.
LIE = """
from kagent.custody.identity import Custody, Identity
from kagent.workers import load
def carry_out(loading, payload):
    loading._hand_over(b"something")
    return {answer}
load._Loading.carry_out = carry_out
load.LEFT = dict.fromkeys(Custody, load.LEFT[Custody("{left}")])
"""
# It leaves a FIDO token's key, for a library that isn't allowed.
NAME_A_FIDO_PROVIDER = """
from kagent.custody.device import DeviceKey
from kagent.custody.identity import Custody, Identity
from kagent.protocol.privatekey import PRIVATE_KEY
from kagent.workers import load
def carry_out(loading, payload):
    key = PRIVATE_KEY.parse({key!r})
    loading._hand_over(DeviceKey(key, "{provider}").write())
    return load.Loaded(Identity(key.public_blob, "", Custody.DEVICE))
load._Loading.carry_out = carry_out
"""
# It leaves a token's PIN, for a library that isn't allowed.
NAME_A_PROVIDER = """
from kagent.workers import load
def carry_out(loading, payload):
    load.Insertion("{provider}", (), False, ()).hand_over("1234", loading._way.handover)
load._Loading.carry_out = carry_out
"""
RECORDS = """\
#!/bin/sh
touch sent
head -c 4 >/dev/null && head -c 1 >/dev/null && head -c 4 >/dev/null
head -c {length} >sent
"""
LOADED = 'load.Loaded(identity=Identity({blob!r}, "", Custody("{custody}")))'


@pytest.fixture
def kagent(person: Person) -> Iterator[Agent]:
    with agent(person) as running:
        settle(running)
        yield running


def lie(kagent: Agent, code: str) -> None:
    """Send a key that makes its load worker that."""
    others = set(kagent.children)
    with kagent.connect() as stream:
        stream.sendall(A_KEY[:-3])
        wait_until(lambda: _confined(set(children_of(kagent.keeper)) - others))
        [worker] = set(children_of(kagent.keeper)) - others
        python_in(worker, code)
        stream.sendall(A_KEY[-3:])
        frames.answer(stream)


def _confined(pids: set[int]) -> bool:
    return any("Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text() for pid in pids)


@pytest.mark.parametrize("left", ["sealed", "device", "token"])
@pytest.mark.parametrize("kind", PAIRS)
def test_it_changes_no_constraints(kagent: Agent, kind: str, left: str) -> None:
    """By an answer for a key that is held, of which it has brought nothing."""
    pair = PAIRS[kind]()
    with Client(kagent.socket) as client:
        assert client.add(pair, Confirm())
        shown = kagent.run("kagentctl", "show").stdout
        custody = "sealed" if "sealed" in shown else "kernel"
        if left == custody:
            pytest.skip("what it brings takes the place of the key")
        answer = LOADED.format(blob=pair.blob, custody=custody)
        lie(kagent, LIE.format(answer=answer, left=left))
        assert not client.signs(pair)
        assert kagent.run("kagentctl", "show").stdout == shown


def test_it_keeps_nobody_from_loading(kagent: Agent) -> None:
    """By leaving keys that it doesn't answer for: more than may be on their way at once."""
    for _ in range(20):
        lie(kagent, LIE.format(answer="load.os._exit(load.LEFT['device'])", left="device"))
    with Client(kagent.socket) as client:
        assert client.add(Pair.new())


@pytest.mark.parametrize("allowed", [False, True])
def test_it_names_no_provider_that_is_not_allowed(person: Person, allowed: bool) -> None:
    """The rule is looked at again, where it doesn't reach."""
    library = copy_of_library(person)
    records = RECORDS.format(length=len(str(library)))
    options = [f"-P{library}"] if allowed else []
    env = {"SSH_PKCS11_HELPER": str(person.file("helper", records, 0o700))}
    with agent(person, "kagent", *options, env=env) as running:
        settle(running)
        lie(running, NAME_A_PROVIDER.format(provider=library))
        assert ("not allowed, see kagent -P" in running.logged()) != allowed
    assert (person.home / "sent").read_bytes() == (str(library).encode() if allowed else b"")


@pytest.mark.parametrize("allowed", [False, True])
def test_it_names_no_fido_provider_that_is_not_allowed(person: Person, allowed: bool) -> None:
    library, key = copy_of_library(person), sk_ed25519()
    options = [f"-P{library}"] if allowed else []
    env = {"SSH_SK_HELPER": str(person.file("helper", "#!/bin/sh\ntouch started\n", 0o700))}
    with agent(person, "kagent", *options, env=env) as running, Client(running.socket) as client:
        settle(running)
        private = PRIVATE_KEY.write(key)
        lie(running, NAME_A_FIDO_PROVIDER.format(provider=library, key=private))
        client.ask(SignRequest(key.public_blob, SSHSIG, 0))
        assert ("not allowed, see kagent -P" in running.logged()) != allowed
    assert (person.home / "started").exists() == allowed
