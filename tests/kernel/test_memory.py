"""No private key in the memory of what lives long."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kagent.private.keyfile import parse
from kagent.protocol.messages import SignRequest, encode
from tests import memory
from tests.host.test_server import ask
from tests.kernel import keys
from tests.programs import Agent

SIGNATURES = 1000
CLIENTS = 4

# Any agent that holds its keys itself.
CONTROL = """
import sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from kagent.private.keyfile import parse
data = open(sys.argv[1], "rb").read()
held, numbers = load_ssh_private_key(data, None), parse(data)
held.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
print("ready", flush=True)
sys.stdin.read()
"""


def needles(path: Path) -> dict[str, bytes]:
    return memory.needles(parse(path.read_bytes())[0].key)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may look")
def test_no_private_key_in_keeper_and_front(kagent: Agent) -> None:
    """After both loaders and a thousand signatures, of which some come while keys are loaded."""
    person = kagent.person
    loaded = {"ssh-add": keys.rsa(2048, 0), "kagent-add": keys.rsa(2048, 1)}
    for loader, path in loaded.items():
        kagent.run(loader, person.file(path.name, path))
    blobs = [parse(path.read_bytes())[0].public_blob for path in loaded.values()]

    def sign(client: int) -> None:
        with kagent.connect() as stream:
            for number in range(SIGNATURES // CLIENTS):
                data = number.to_bytes(200, "big")
                reply = ask(stream, encode(SignRequest(blobs[client % 2], data, 2)))
                assert reply[4] == 14, kagent.logged()

    with ThreadPoolExecutor(CLIENTS) as clients:
        done = clients.map(sign, range(CLIENTS))
        for loader, path in loaded.items():
            kagent.run(loader, person.home / path.name)
        assert len(list(done)) == CLIENTS
    for path in loaded.values():
        for pid in (kagent.process.pid, kagent.front):
            assert memory.find(pid, needles(path)) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root may look")
def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """The control: in a process that holds the same key, every number in some form."""
    path = keys.rsa(2048, 0)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", CONTROL, path], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = memory.find(process.pid, needles(path))
        process.communicate("")
    for number in ("p", "q", "d", "dp", "dq", "qinv"):
        assert [name for name in found if name.startswith(f"{number}, ")], found
    for form in ("limbs", "digits"):
        assert [name for name in found if f", {form}" in name], found
