"""An agent asked at its socket, and keys to ask it with."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kagent.keyctl import PROCESS_KEYRING, AsymmetricKey, KernelKeyError, Keyring
from kagent.private.keyfile import parse
from kagent.protocol import messages
from kagent.protocol.constraints import Constraint
from kagent.protocol.messages import (
    AddIdConstrained,
    AddIdentity,
    IdentitiesAnswer,
    Message,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    decode,
    encode,
)
from kagent.protocol.privatekey import Ed25519PrivateKey, NamedPrivateKey, RsaPrivateKey
from tests.support.programs import SECONDS

_RSA_SHA2_256 = 2  # RFC 9987 section 3.6.1


@dataclass(frozen=True)
class Pair:
    """A key pair."""

    private: NamedPrivateKey
    file: bytes
    der: bytes

    @property
    def blob(self) -> bytes:
        return self.private.public_blob

    @property
    def secret(self) -> bytes:
        """What no other may learn, as PKCS#8 and ssh have it: p, a scalar, or a seed."""
        key = self.private.key
        if isinstance(key, Ed25519PrivateKey):
            return key.seed_and_point[:32]
        number = key.p if isinstance(key, RsaPrivateKey) else key.d  # type: ignore[union-attr]
        return number.to_bytes((number.bit_length() + 7) // 8, "big")

    @classmethod
    def of(
        cls, key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    ) -> Pair:
        file = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return cls(parse(file)[0], file, der)

    @classmethod
    def new(cls) -> Pair:
        """One that is sealed wherever it is loaded."""
        return cls.of(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def ecdsa(cls) -> Pair:
        """Another that is sealed."""
        return cls.of(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def rsa(cls) -> Pair:
        """One that the kernel signs with, where it can."""
        return cls.of(rsa.generate_private_key(65537, 1024))


def kernel_signs() -> bool:
    """Whether this kernel takes private keys: a booted one does."""
    ring = Keyring.special(PROCESS_KEYRING, create=True)
    try:
        ring.unlink(AsymmetricKey.add("probe", Pair.rsa().der, ring))
    except KernelKeyError:
        return False
    return True


# The kinds of keys that are held differently.
PAIRS = {"ed25519": Pair.new} | ({"rsa": Pair.rsa} if kernel_signs() else {})


class Client:
    """A connection."""

    def __init__(self, path: Path, seconds: float = SECONDS) -> None:
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(seconds)
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.stream.connect(str(path))
            except (BlockingIOError, ConnectionRefusedError):  # it doesn't listen yet, or is full
                assert time.monotonic() < deadline, "nobody lets this one in"
                time.sleep(0.01)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def ask(self, message: Message) -> Message | None:
        """The answer; None if the agent ends the connection."""
        self.send(message)
        return self.answer()

    def send(self, message: Message) -> None:
        self.stream.sendall(encode(message))

    def answer(self) -> Message | None:
        try:
            header = self._receive(4)
            return decode(self._receive(struct.unpack(">I", header)[0])) if header else None
        except ConnectionResetError:
            return None

    def _receive(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            chunk = self.stream.recv(length - len(received))
            if not chunk:
                return b""
            received += chunk
        return received

    def add(self, pair: Pair, *constraints: Constraint) -> bool:
        message: Message = AddIdentity(pair.private, "a key")
        if constraints:
            message = AddIdConstrained(pair.private, "a key", constraints)
        return isinstance(self.ask(message), Success)

    def signs(self, pair: Pair, data: bytes = b"to be signed") -> bool:
        return isinstance(self.ask(sign(pair, data)), SignResponse)

    def lists(self, pair: Pair) -> bool:
        answer = self.ask(RequestIdentities())
        assert isinstance(answer, IdentitiesAnswer), answer
        return pair.blob in [one.blob for one in answer.identities]

    def lock(self, passphrase: bytes = b"mine") -> bool:
        return isinstance(self.ask(messages.Lock(passphrase)), Success)

    def unlock(self, passphrase: bytes = b"mine") -> bool:
        return isinstance(self.ask(Unlock(passphrase)), Success)

    def remove(self, pair: Pair) -> bool:
        return isinstance(self.ask(RemoveIdentity(pair.blob)), Success)

    def remove_all(self) -> bool:
        return isinstance(self.ask(RemoveAllIdentities()), Success)


def sign(pair: Pair, data: bytes = b"to be signed") -> SignRequest:
    """The request for a signature."""
    flags = _RSA_SHA2_256 if pair.private.type == "ssh-rsa" else 0
    return SignRequest(pair.blob, data, flags)


def certificate_of_a_server() -> bytes:
    """Of X.509, which any kernel takes."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
