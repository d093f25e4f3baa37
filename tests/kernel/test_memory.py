"""No private key in the memory of what lives long; the control is kagentctl prove's."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from kagent.private.keyfile import parse
from kagent.protocol.messages import SignRequest, encode
from tests.kernel import keys
from tests.support.frames import ask
from tests.support.programs import Agent
from tests.support.proving import has_nothing_of

SIGNATURES = 1000
CLIENTS = 4


@pytest.mark.skipif(os.getuid() != 0, reason="only root may look")
def test_no_private_key_in_any_process(kagent: Agent) -> None:
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
    has_nothing_of(kagent, *(person.home / path.name for path in loaded.values()))
