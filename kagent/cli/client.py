"""The agent at SSH_AUTH_SOCK, any agent, as a client sees it."""

from __future__ import annotations

import os
import socket
from typing import TypeVar

from ..protocol.messages import (
    EXPLAIN,
    MAX_PAYLOAD,
    SHOW,
    Extension,
    ExtensionResponse,
    Message,
    Shown,
    Success,
    decode,
    encode,
)
from ..protocol.wire import TEXT, ProtocolError, Reader
from ..text import as_it_came, printable

M = TypeVar("M", bound=Message)

# FAILURE, EXTENSION_FAILURE, and what older and other agents say for it (authfd.c).
_FAILURES = (b"\x05", b"\x1c", b"\x1e", b"\x66")


# What there is to do where no kagent is.
START = """to have one, `kagentctl install` and log in anew, or `eval "$(kagent -s)"`"""
_OTHER_AGENT = "another agent answers at SSH_AUTH_SOCK, not kagent"


class AgentUnavailable(Exception):
    """No agent can be reached; says why."""


def unreachable(error: AgentUnavailable) -> str:
    """What is wrong with SSH_AUTH_SOCK."""
    if not str(error):
        return "SSH_AUTH_SOCK is not set"
    return f"SSH_AUTH_SOCK is {as_it_came(os.environ['SSH_AUTH_SOCK'])}: {error}"


class AgentError(Exception):
    """The agent didn't do it, in OpenSSH's words (ssherr.c)."""


class Client:
    """One connection.  Raises AgentUnavailable; SSH_AUTH_SOCK unset makes its text empty."""

    def __init__(self) -> None:
        path = os.environ.get("SSH_AUTH_SOCK")
        if not path:
            raise AgentUnavailable
        self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._stream.connect(path)
        except OSError as error:
            self._stream.close()
            raise AgentUnavailable(error.strerror or str(error)) from error

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def request(self, message: Message, expected: type[M]) -> M:
        """Send `message` and give the answer.  Raises AgentError if it isn't `expected`."""
        answer = self._exchange(message)
        if isinstance(answer, expected):
            return answer
        raise AgentError("invalid format")

    def do(self, message: Message) -> None:
        """Request what is answered with SUCCESS.  Raises AgentError."""
        self.request(message, Success)

    def shown(self) -> tuple[Shown, ...]:
        """All that a kagent knows of its identities.  Raises AgentError, ProtocolError."""
        return Shown.parse_all(self.request(Extension(SHOW, b""), ExtensionResponse).contents)

    def explanation(self) -> str | None:
        """What a kagent has to say about the last request; None if it is another agent."""
        try:
            answer = self._exchange(Extension(EXPLAIN, b""))
            if isinstance(answer, ExtensionResponse) and answer.name == EXPLAIN:
                return TEXT.read(Reader(answer.contents))
        except (AgentError, ProtocolError):
            pass
        return None

    def why_not_shown(self) -> str:
        """Why it hasn't told how it is, and what it holds, after that was refused."""
        told = self.explanation()
        if told is None:
            return _OTHER_AGENT
        return printable(told) or "it answers as another version of kagent does"

    def what_to_do_instead(self) -> str:
        """As `why_not_shown`, with what to do where that is another agent."""
        told = self.why_not_shown()
        return f"{told}; {START}" if told == _OTHER_AGENT else told

    def _exchange(self, message: Message) -> Message:
        try:
            self._stream.sendall(encode(message))
            length = int.from_bytes(self._receive(4), "big")
            if length > MAX_PAYLOAD:
                raise AgentError("invalid format")
            payload = self._receive(length)
            if payload[:1] in _FAILURES:
                raise AgentError("agent refused operation")
            return decode(payload)
        except OSError as error:
            raise AgentError("communication with agent failed") from error
        except ProtocolError as error:
            raise AgentError("invalid format") from error

    def _receive(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            chunk = self._stream.recv(length - len(received))
            if not chunk:
                raise AgentError("communication with agent failed")
            received += chunk
        return received
