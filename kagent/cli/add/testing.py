"""Whether the agent signs with a key (ssh-add -T)."""

from __future__ import annotations

import os

from ...private.verify import BadSignature, verify
from ...protocol.algorithms import SignFlags
from ...protocol.messages import SignRequest, SignResponse
from ...protocol.publickey import PublicKey
from ...protocol.wire import TEXT, ProtocolError, Reader
from ..client import AgentError, Client
from . import keyfiles
from .report import Report


def test_key(client: Client, report: Report, name: str) -> bool:
    """Have something signed with the key of the pair `name`, and verify the signature."""
    try:
        key, _ = keyfiles.public_key(name)
    except keyfiles.Unreadable as error:
        report.error(f"Couldn't read public key {name}: {error}")
        return False
    data = os.urandom(1024)
    try:
        signature = _signature(client, key, data)
    except AgentError as error:
        report.error(f"Agent signature failed for {name}: {error}")
        report.explain(client)
        return False
    try:
        algorithm = verify(key, signature, data)
    except BadSignature as error:
        report.error(f"Signature verification failed for {name}: {error}")
        return False
    report.debug(1, f"{name}: a good {algorithm} signature")
    return True


def _signature(client: Client, key: PublicKey, data: bytes) -> bytes:
    """What the agent signs; with RSA it must be by the hash that was asked for."""
    is_rsa = key.plain_type == "ssh-rsa"
    flags = SignFlags.RSA_SHA2_256 if is_rsa else SignFlags(0)
    answer = client.request(SignRequest(key.blob, data, flags), SignResponse)
    try:
        if is_rsa and TEXT.read(Reader(answer.signature)) != "rsa-sha2-256":
            raise AgentError("signature algorithm not supported")
    except ProtocolError as error:
        raise AgentError("invalid format") from error
    return answer.signature
