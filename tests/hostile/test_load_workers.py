"""A load worker that was taken over, by the one key that it reads, reaches nothing that is held."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagent.custody.device import DeviceKey
from kagent.protocol.constraints import Confirm
from kagent.protocol.messages import SESSION_BIND, Extension, SignRequest, encode
from kagent.protocol.privatekey import NamedPrivateKey, SkEd25519PrivateKey
from tests.hostile.asking import PAIRS, Client, Pair
from tests.hostile.conftest import settle
from tests.support import frames
from tests.support.frames import A_KEY
from tests.support.injection import python_in
from tests.support.programs import Agent, Person, agent, children_of, wait_until
from tests.support.softhsm import LIBRARY, copy_of_library, stand_in, with_pin

# Its end, and what it has handed over, say that it brings what `left` says; its answer, whatever it
# likes of whatever key.
LIE = """
from kagent.custody.identity import Custody, Identity
from kagent.protocol.constraints import Lifetime
from kagent.workers import load
def carry_out(loading, payload):
    loading._hand_over({brought!r})
    return {answer}
load._Loading.carry_out = carry_out
load.LEFT = dict.fromkeys(Custody, load.LEFT[Custody("{left}")])
"""
LOADED = 'load.Loaded(identity=Identity({blob!r}, "", Custody("{custody}"){more}))'

# In ssh-sk-helper's place: it leaves what it was asked.
HELPER = "#!/bin/sh\nexec dd bs=65536 count=1 of=asked 2>/dev/null\n"


def token_key(application: str) -> NamedPrivateKey:
    """A token's key that needn't be touched."""
    key = SkEd25519PrivateKey(bytes(range(32)), application, 0, b"its handle", b"")
    return NamedPrivateKey(key.types[0], key)


HERS, WEB = token_key("ssh:"), token_key("https://bank.example")

# It leaves a token's PIN, for a library that isn't allowed.
NAME_A_PROVIDER = """
from kagent.workers import load
def carry_out(loading, payload):
    load.Insertion("{provider}", (), False, ()).hand_over("1234", loading._way.handover)
load._Loading.carry_out = carry_out
"""
RECORDS = """\
#!/bin/sh
head -c 4 >/dev/null && head -c 1 >/dev/null && head -c 4 >/dev/null
head -c {length} >sent
"""


@pytest.fixture
def kagent(person: Person) -> Iterator[Agent]:
    with agent(person) as running:
        settle(running)
        yield running


def lie(kagent: Agent, code: str, *before: bytes) -> None:
    """Send a key that makes its load worker that; other requests before."""
    others = set(kagent.children)
    with kagent.connect() as stream:
        for frame in before:
            frames.ask(stream, frame)
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
        answer = LOADED.format(blob=pair.blob, custody=custody, more="")
        lie(kagent, LIE.format(brought=b"something", answer=answer, left=left))
        assert not client.signs(pair)
        assert kagent.run("kagentctl", "show").stdout == shown


def test_it_removes_no_keys_of_a_token(person: Person) -> None:
    """By saying that it was asked for that, and not sent a key."""
    with agent(person, env={"SSH_PKCS11_HELPER": str(stand_in(person))}) as running:
        settle(running)
        running.run("ssh-add", "-q", "-s", LIBRARY, **with_pin(person))
        listed = running.run("ssh-add", "-l").stdout
        answer = f'load.Removal("{LIBRARY}")'
        lie(running, LIE.format(brought=b"", answer=answer, left="sealed"))
        assert running.run("ssh-add", "-l").stdout == listed


def test_it_keeps_nobody_from_loading(kagent: Agent) -> None:
    """By leaving keys that it doesn't answer for: more than may be on their way at once."""
    for _ in range(20):
        answer = "load.os._exit(load.LEFT['device'])"
        lie(kagent, LIE.format(brought=b"something", answer=answer, left="device"))
    with Client(kagent.socket) as client:
        assert client.add(Pair.new())


@pytest.mark.parametrize(
    ("key", "library", "bound", "asked"),
    [
        (HERS, "allowed/good.so", False, True),  # the control
        (HERS, "evil.so", False, False),
        (HERS, "allowed/../evil.so", False, False),
        (HERS, "allowed/link.so", False, False),
        (HERS, "allowed/good.so", True, False),
        (WEB, "allowed/good.so", False, False),
    ],
    ids=["allowed", "another", "way out", "link", "from afar", "web"],
)
def test_it_names_no_library(
    person: Person, key: NamedPrivateKey, library: str, bound: bool, asked: bool
) -> None:
    """That kagent -P doesn't allow, or not from other hosts; nor signs a web site's challenge.

    By what it leaves as a token's handle, whatever the key is whose identity it tells.
    """
    home = person.home
    (home / "allowed").mkdir(0o755)
    for name in ("allowed/good.so", "evil.so"):
        person.file(name, "a library", mode=0o755)
    (home / "allowed/link.so").symlink_to("../evil.so")
    env = {"SSH_SK_HELPER": str(person.file("helper", HELPER, mode=0o755))}
    brought = DeviceKey(key, str(home / library)).write()
    answer = LOADED.format(blob=HERS.public_blob, custody="device", more="")
    code = LIE.format(brought=brought, answer=answer, left="device")
    with agent(person, "kagent", f"-P{home}/allowed/*", env=env) as kagent:
        settle(kagent)
        lie(kagent, code, *([encode(Extension(SESSION_BIND, b""))] if bound else []))
        with Client(kagent.socket) as client:
            client.ask(SignRequest(HERS.public_blob, b"to be signed", 0))
        assert (home / "asked").exists() == asked, kagent.logged()


@pytest.mark.parametrize(
    ("option", "more", "held"),
    [
        ("-P*", "", True),  # the control
        ("-P*", ", constraints=(Lifetime(1),)", False),
        ("-P*", ", constraints=(Lifetime(0),)", False),
        ("--custody=kernel", "", False),
        ("-t60", "", False),
    ],
)
def test_it_changes_no_terms(person: Person, option: str, more: str, held: bool) -> None:
    """What kagent was told of all keys holds for the one that it brings, and so does its time."""
    pair = Pair.new()
    answer = LOADED.format(blob=pair.blob, custody="sealed", more=more)
    with agent(person, "kagent", option) as kagent:
        settle(kagent)
        lie(kagent, LIE.format(brought=b"something", answer=answer, left="sealed"))
        with Client(kagent.socket) as client:
            time.sleep(1.5 if "(1)" in more else 0)
            assert client.lists(pair) == held


def test_it_lists_no_key_that_is_none(kagent: Agent) -> None:
    """Which could keep ssh-add from listing the others."""
    answer = LOADED.format(blob=b"no key", custody="sealed", more="")
    lie(kagent, LIE.format(brought=b"something", answer=answer, left="sealed"))
    assert kagent.run("ssh-add", "-l", check=False).stdout == "The agent has no identities.\n"


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
    sent = person.home / "sent"  # not there if the helper was ended first
    told = sent.read_text() if sent.exists() else ""
    assert told == (str(library) if allowed else "")
