"""A host that the agent is forwarded to learns and gets nothing that isn't meant for it."""

from __future__ import annotations

from kagent.protocol.constraints import RestrictDestination
from kagent.protocol.messages import (
    SHOW,
    AddIdConstrained,
    Extension,
    ExtensionResponse,
    Success,
    decode,
)
from tests.destinations.keys import USERS_KEY, A, B, C, hop
from tests.destinations.requests import forward
from tests.hostile.asking import Client
from tests.support.programs import Agent


def test_destinations_are_not_told_to_other_hosts(
    attacked: Agent, client: Client, falls: bool
) -> None:
    """The key may be used from host A to host B, and from here to host C."""
    hops = (hop(A), hop(B, origin=A), hop(C))
    message = AddIdConstrained(USERS_KEY.named(), "a key", (RestrictDestination(hops),))
    assert isinstance(client.ask(message), Success)
    here = client.ask(Extension(SHOW, b""))
    assert isinstance(here, ExtensionResponse)
    assert C.blob in here.contents
    with Client(attacked.socket) as connection:
        assert isinstance(connection.ask(decode(forward(A)[4:])), Success)
        told = connection.ask(Extension(SHOW, b""))
        contents = told.contents if isinstance(told, ExtensionResponse) else b""
    assert (B.blob in contents or C.blob in contents) == falls
