"""The front's way to the keeper, to the workers of its errands, and to the lookout."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import trio

from ..custody.identity import Custody, Identity
from ..jobs.causes import Cause
from ..jobs.jobs import Answer, Job, Kind, Refused, unpack_answer
from ..jobs.questions import Fetch, Inquiry, TokenSignature, pack_inquiry
from ..jobs.sockets import Sockets
from ..protocol.messages import MAX_PAYLOAD
from ..protocol.wire import Record

# A worker ends itself long before that; this is for when there is none.
_SECONDS = 60.0
_SECONDS_OF_OTHERS = 180.0

# A look takes milliseconds; at first the keeper may have to get a lookout ready.
_SECONDS_TO_LOOK, _SECONDS_TO_LOOK_FIRST = 1.0, 10.0

# Until another try where something is used up, and how long it is tried.
_MOMENT = 0.02
_SECONDS_TO_INSIST = 10.0

# More than any has to say, but one that was taken over.
_LONGEST_ANSWER = 4 * MAX_PAYLOAD


class Workers:
    """The front's ends of the sockets to the keeper and the lookout."""

    def __init__(self, sockets: Sockets) -> None:
        self._keeper, self._lookout = _Channel(sockets.control), _Channel(sockets.looking)
        self._seconds_to_look = _SECONDS_TO_LOOK_FIRST

    async def load(
        self,
        number: int,
        client: socket.socket,
        message_type: int,
        body_length: int,
        *,
        bound: bool,
        locked: bool,
        of_token: bool,
    ) -> Answer | None:
        """Have a worker read `body_length` bytes from `client` and load the key.

        What is `of_token` may take as long as its user.  None if the worker died first: how much it
        has read of the body is then unknown.
        """
        job = Job(Kind.LOAD, message_type, bound, locked, number, body_length)
        seconds = _SECONDS_OF_OTHERS if of_token else _SECONDS
        return await self._keeper.ask(job.pack(), [client.fileno()], seconds)

    async def keep(self, number: int, identity: Identity, record: bytes = b"") -> Answer | None:
        """Have the keeper hold the key of load `number` for that identity.

        With its `record`, if that is the keeper's to hold.  What it was held as before stays, until
        `forget` or `go_back`.
        """
        job = Job(
            Kind.KEEP,
            number=number,
            deadline=identity.latest,
            description=identity.description,
            custody=identity.custody,
            idle=identity.idle,
        )
        return await self._keeper.ask(job.pack() + record)

    async def go_back(self, before: Identity) -> Answer | None:
        """Have the keeper hold again what a load has taken the place of that could not be done."""
        job = Job(
            Kind.GO_BACK,
            deadline=before.deadline,
            description=before.description,
            custody=before.custody,
        )
        answer: Answer | None = None
        with trio.move_on_after(_SECONDS_TO_INSIST):
            while True:
                answer = await self._keeper.insist(job.pack() + before.write())
                # Else it has no memory for that, say: who gives up now loses what was held.
                if not isinstance(answer, Refused) or answer.cause is Cause.STILL_THERE:
                    break
                await trio.sleep(_MOMENT)
        return answer

    def used(self, identity: Identity) -> None:
        """Have the keeper put off the end of an identity that ends when it isn't used."""
        self._keeper.tell(Job(Kind.USED, description=identity.description).pack())

    async def drop(self, number: int) -> Answer | None:
        """Have the keeper throw the key of load `number` away."""
        return await self._keeper.insist(Job(Kind.DROP, number=number).pack())

    async def forget(self, description: str, but: Custody | None = None) -> Answer | None:
        """Have the keeper destroy what it holds of the identity of that description.

        All of it, or what it holds in another custody than `but`.
        """
        job = Job(Kind.FORGET, description=description, custody=but)
        return await self._keeper.insist(job.pack())

    async def forget_all(self) -> Answer | None:
        """Have the keeper destroy all that it holds of identities."""
        return await self._keeper.ask(Job(Kind.FORGET_ALL).pack())

    async def send_out(self, kind: Kind, request: Record) -> Answer | None:
        """Have a worker do an errand; None if it died."""
        return await self._errand(kind, request, [], _SECONDS)

    async def ask_user(
        self, kind: Kind, request: Record, client: socket.socket, number: int = 0
    ) -> Answer | None:
        """Have a worker do what needs the user, as long as `client` is there; None if it died.

        What comes of it may be the load of that number.
        """
        return await self._errand(
            kind, request, [client.fileno()], _SECONDS_OF_OTHERS, number=number
        )

    async def fetch(self, request: Fetch) -> Answer | None:
        """Have a worker have the kernel fetch a key; None if it died."""
        return await self._errand(Kind.FETCH, request, [], _SECONDS_OF_OTHERS)

    async def ask_behind(self, kind: Kind, number: int, request: Record) -> Answer | None:
        """Have a worker ask the agent behind of that number; None if it died.  Raises OSError."""
        return await self._errand(kind, request, [], _SECONDS_OF_OTHERS, number=number)

    async def have_token_sign(self, description: str, request: TokenSignature) -> Answer | None:
        """Have the token process of that identity have its token sign; None if it died."""
        return await self._errand(
            Kind.TOKEN, request, [], _SECONDS_OF_OTHERS, description=description
        )

    async def _errand(
        self,
        kind: Kind,
        request: Record,
        descriptors: list[int],
        seconds: float,
        *,
        number: int = 0,
        description: str = "",
    ) -> Answer | None:
        body = request.write()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # As much as a message can have must fit in, since nobody reads yet.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PAYLOAD)
            ours.setblocking(False)
            if ours.send(body) < len(body):
                raise OSError("an errand's request doesn't fit into a socket")
            job = Job(kind, number=number, body_length=len(body), description=description)
            return await self._keeper.ask(job.pack(), [theirs.fileno(), *descriptors], seconds)

    async def look_soon(self, request: Inquiry) -> Answer | None:
        """As `look`, but None if it takes more than a moment.  Raises OSError."""
        seconds, self._seconds_to_look = self._seconds_to_look, _SECONDS_TO_LOOK
        with trio.move_on_after(seconds):
            return await self.look(request)
        return None

    async def look(self, request: Inquiry) -> Answer | None:
        """Have the lookout tell what it is asked; None if two of them died.

        Raises OSError.
        """
        packet = pack_inquiry(request)
        return await self._lookout.ask(packet) or await self._lookout.ask(packet)


class _Channel:
    """A socket whose other end answers each packet through a pipe that comes with it."""

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(False)
        # Room for the largest message in one packet.
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PAYLOAD)
        self._socket = own
        self._full = trio.Lock()  # one task at a time can wait for a socket

    async def ask(
        self, packet: bytes, descriptors: Sequence[int] = (), seconds: float = _SECONDS
    ) -> Answer | None:
        """The answer; None if there is none in time, or never will be.  Raises OSError."""
        pipe, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                await self._send(packet, [*descriptors, theirs])
            finally:
                os.close(theirs)
            os.set_blocking(pipe, False)
            with trio.move_on_after(seconds):
                return unpack_answer(await _receive(pipe))
        finally:
            os.close(pipe)
        return None

    async def insist(self, packet: bytes) -> Answer | None:
        """As `ask`, of what has to follow on what was done already.

        Where there are no descriptors or no memory for that, it is tried again for a while: else a
        load would be told to have failed, and what it has brought be held.
        """
        with trio.move_on_after(_SECONDS_TO_INSIST):
            while True:
                try:
                    return await self.ask(packet)
                except OSError:
                    await trio.sleep(_MOMENT)
        return None

    def tell(self, packet: bytes) -> None:
        """Send what has no answer, if that can be done at once."""
        with suppress(OSError):
            self._socket.send(packet)

    async def _send(self, packet: bytes, descriptors: list[int]) -> None:
        # Who comes while others wait, waits behind them.
        if self._full.locked() or not self._sent(packet, descriptors):
            async with self._full:
                while not self._sent(packet, descriptors):
                    await trio.lowlevel.wait_writable(self._socket)

    def _sent(self, packet: bytes, descriptors: list[int]) -> bool:
        try:
            socket.send_fds(self._socket, [packet], descriptors)
        except BlockingIOError:
            return False
        return True


async def readable(descriptor: int | socket.socket) -> None:
    """Wait until there is something to read, or a moment where the machine has no memory to wait:
    what was asked for is done all the same, and who doesn't hear of it would take it back.
    """
    try:
        await trio.lowlevel.wait_readable(descriptor)
    except OSError:
        await trio.sleep(_MOMENT)


async def _receive(pipe: int) -> bytes:
    chunks: list[bytes] = []
    while sum(map(len, chunks)) <= _LONGEST_ANSWER:
        try:
            chunk = os.read(pipe, MAX_PAYLOAD)
        except BlockingIOError:
            await readable(pipe)
            continue
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
    return b""
