"""Which token process signs for which identity, as long as keys of its token are held."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

# More providers than anybody has; each costs two processes.
_MOST = 16


class Token:
    """A token process, and the identities that it signs for, by their descriptions."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.descriptions: set[str] = set()


class Tokens:
    """The token processes.  One without a load that has just brought it has something to sign for,
    or is dismissed."""

    def __init__(self, dismiss: Callable[[int], None]) -> None:
        """`dismiss` ends a child."""
        self._dismiss = dismiss
        self._all: dict[int, Token] = {}  # by pid
        self._of: dict[str, Token] = {}  # by description

    @property
    def full(self) -> bool:
        """Whether there may be no more of them."""
        return len(self._all) >= _MOST

    def add(self, token: Token) -> None:
        """One that was started."""
        self._all[token.pid] = token

    def keep(self, description: str, token: Token) -> None:
        """Have it sign for that identity.  Raises ValueError if it has ended."""
        if self._all.get(token.pid) is not token:
            raise ValueError("the process that talks to the token has ended")
        if self._of.get(description) is not token:
            self.forget(description)
        self._of[description] = token
        token.descriptions.add(description)

    def sign_for(self, description: str) -> bool:
        """Whether one of them does, for that identity."""
        return description in self._of

    def forget(self, description: str) -> None:
        """Have nothing sign for that identity any more."""
        token = self._of.pop(description, None)
        if token:
            token.descriptions.discard(description)
            self.dismiss_unused(token)

    def clear(self) -> None:
        """As `forget`, of all identities."""
        for description in list(self._of):
            self.forget(description)

    def dismiss_unused(self, token: Token) -> None:
        """End one that signs for nothing, and the helper with it."""
        if not token.descriptions and self._all.get(token.pid) is token:
            self.has_ended(token)
            self._dismiss(token.pid)

    def has_ended(self, token: Token) -> None:
        """Its keys stay listed, and are refused."""
        token.control.close()
        if self._all.get(token.pid) is token:
            del self._all[token.pid]
        for description in token.descriptions:
            del self._of[description]
        token.descriptions.clear()

    def ask(self, description: str, packet: bytes, descriptors: Sequence[int]) -> bool:
        """Send it a request; False if there is none that signs for that identity.

        Raises OSError if it can take no more, or is about to end.
        """
        token = self._of.get(description)
        if token is None:
            return False
        socket.send_fds(token.control, [packet], descriptors, socket.MSG_DONTWAIT)
        return True
