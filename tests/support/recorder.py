"""An agent that keeps what it is told and gives prepared answers."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kagent.protocol.messages import EXPLAIN
from tests.support.frames import FAILURE, SUCCESS
from tests.support.programs import SECONDS, Person


class Recorder:
    """Answers every message with `answer`, a whole frame, and keeps its payload."""

    def __init__(self, person: Person, path: Path) -> None:
        self.answer = SUCCESS
        self.payloads: list[bytes] = []
        self._person = person
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        os.chown(path, person.uid, person.gid)
        self._listener.listen()
        self.path = path
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def run(
        self, *command: str | Path, **options: str
    ) -> tuple[subprocess.CompletedProcess[str], list[bytes]]:
        """Run a program that has this agent; what it says and what it has sent."""
        self.payloads = []
        told = self._person.run(
            *command, check=False, **{"SSH_AUTH_SOCK": str(self.path), **options}
        )
        return told, self.payloads

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            # A client may go before it has read all of an answer.
            with suppress(BrokenPipeError), stream, stream.makefile("rb") as frames:
                while header := frames.read(4):
                    payload = frames.read(int.from_bytes(header, "big"))
                    if EXPLAIN.encode() in payload:
                        stream.sendall(FAILURE)
                    else:
                        self.payloads.append(payload)
                        stream.sendall(self.answer)


@contextmanager
def recorder(person: Person) -> Iterator[Recorder]:
    """A Recorder, as long as the block runs."""
    running = Recorder(person, person.home / "recorder")
    try:
        yield running
    finally:
        running.close()
