"""careless SOCKET: an agent with the faults that kagent once had, so that attacks are seen to hit.

A keeper, a front that is started anew when it ends, and a worker for each load.  It is as short as
an agent can be that has them all, and holds to no rule but the protocol's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from kagent.custody import kernel
from kagent.custody.identity import Custody, Identity, description_of
from kagent.keyctl import (
    PROCESS_KEYRING,
    SESSION_KEYRING,
    AsymmetricKey,
    KernelKeyError,
    Key,
    Keyring,
    Permission,
    mask,
    session_keyring,
    syscalls,
)
from kagent.protocol import messages
from kagent.protocol.constraints import Confirm, Lifetime
from kagent.protocol.messages import (
    SHOW,
    AddIdConstrained,
    AddIdentity,
    Extension,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Message,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    Shown,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
    decode,
    encode,
)
from kagent.protocol.privatekey import Ed25519PrivateKey, NamedPrivateKey, RsaPrivateKey
from kagent.protocol.wire import STRING, TEXT, ProtocolError
from tests.hostile.joining import join, set_timeout

_POSSESSOR_ONLY = mask(possessor=Permission.ALL)
_PR_SET_PDEATHSIG = 1
_ANCHOR = "kagent:session"
_LOCK = "kagent-lock"
_MOST_LOADS = 8
_DELAY = 0.1


def _enter_by_name(*holding: Keyring) -> None:
    """Fault: for a moment everybody can see the name, and join."""
    process = Keyring.special(PROCESS_KEYRING, create=True)
    name = f"careless-{os.urandom(16).hex()}"
    private = Keyring.create(name, process)
    for keyring in holding:
        private.link(keyring)
    private.set_permissions(mask(possessor=Permission.ALL, user=Permission.SEARCH))
    joined = Keyring(join(name))
    joined.set_permissions(_POSSESSOR_ONLY)
    process.unlink(joined)


class Rings:
    """Fault: the front has all of them."""

    def __init__(self) -> None:
        self.login = session_keyring()
        process = Keyring.special(PROCESS_KEYRING, create=True)
        self.private = Keyring.create("careless:private", process)
        self.private.set_permissions(_POSSESSOR_ONLY)
        self.sealed = Keyring.create("careless:sealed", process)
        self.sealed.set_permissions(_POSSESSOR_ONLY)
        _enter_by_name(self.login, self.private, self.sealed)

    @property
    def anchor(self) -> Keyring:
        """Fault: whatever has that name, and whoever owns it."""
        try:
            return Keyring(syscalls.search(self.login.serial, "keyring", _ANCHOR))
        except KernelKeyError:
            return Keyring.create(_ANCHOR, self.login)


class Front:
    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self._loads = 0
        self._wrong = 0  # fault: the next front begins anew
        self._turn = threading.Lock()

    def serve(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def _serve_one(self, client: socket.socket) -> None:
        with client, suppress(OSError, ConnectionError):
            while True:
                header = _receive(client, 5)
                length, kind = int.from_bytes(header[:4], "big"), header[4]
                try:
                    if kind in (17, 25):
                        answer = self._add(client, header[4:], length - 1)
                    else:
                        answer = self._answer(decode(header[4:] + _receive(client, length - 1)))
                except (ProtocolError, KernelKeyError) as error:
                    print(repr(error), file=sys.stderr, flush=True)
                    answer = Failure()
                client.sendall(encode(answer))

    def _add(self, client: socket.socket, kind: bytes, length: int) -> Message:
        if self._loads >= _MOST_LOADS:  # fault: and nobody ends those that only wait
            client.shutdown(socket.SHUT_RD)
            return Failure()
        self._loads += 1
        inbox = Keyring.create("careless:inbox", Keyring.special(SESSION_KEYRING))
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            try:
                _enter_by_name(self._rings.private, inbox, self._rings.login)
                self._load(decode(kind + _receive(client, length)), inbox)
                os._exit(0)
            except Exception as error:
                print(repr(error), file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        os.waitpid(child, 0)  # fault: whatever it ended with, what it has left is taken
        self._loads -= 1
        time.sleep(0.01)  # in which the keeper can be stopped
        kept = False
        for key, _ in list(inbox.described()):
            inbox.move(key, self._rings.sealed)
            kept = True
        return Success() if kept or not self._locked else Failure()

    def _load(self, message: Message, inbox: Keyring) -> None:
        assert isinstance(message, AddIdentity | AddIdConstrained)
        constraints = getattr(message, "constraints", ())
        blob, der = message.key.public_blob, _der(message.key)
        held: Key
        custody, home = Custody.KERNEL, self._rings.private
        try:
            own = Keyring.special(PROCESS_KEYRING, create=True)
            held = AsymmetricKey.add(description_of(blob), der, own)
            held.limits()
            home = home if constraints else self._rings.anchor
            home.link(held)
        except KernelKeyError:
            custody = Custody.SEALED
            held = inbox.add("user", description_of(blob), der)
        order = time.monotonic_ns()
        identity = Identity(blob, message.comment, custody, "", tuple(constraints), order)
        if constraints:
            held.set_permissions(_POSSESSOR_ONLY)
        record = home.add("user", identity.description, identity.write())
        for one in constraints:
            if isinstance(one, Lifetime):  # fault: last, on the wall clock, and the key goes on
                set_timeout(record.serial, one.seconds)

    @property
    def _locked(self) -> bool:
        return self._rings.private.find("user", _LOCK) is not None

    def _answer(self, message: Message) -> Message:
        private = self._rings.private
        match message:
            case Unlock(passphrase):
                return self._unlock(passphrase)
            case _ if self._locked:
                return Failure()
            case messages.Lock(passphrase):
                private.add("user", _LOCK, passphrase)
                self._move_all(self._rings.anchor, private)
            case RequestIdentities():
                shown = [messages.ListedKey(one.blob, one.comment) for one in self._identities()]
                return IdentitiesAnswer(tuple(shown))
            case Extension("show@kagent"):  # fault: whoever asks
                told = [
                    Shown(one.blob, one.comment, one.custody, "", one.constraints, 0).write()
                    for one in self._identities()
                ]
                return ExtensionResponse(SHOW, b"".join(told))
            case SignRequest(blob, data):
                return self._sign(blob, data)
            case RemoveIdentity(blob):
                self._remove(description_of(blob))
            case RemoveAllIdentities():
                for key, about in self._rings.anchor.described():
                    if about.type == "user":
                        Identity.parse(key.read())  # fault: one that can't be read ends it
                self._rings.anchor.clear()
                private.clear()
                self._rings.sealed.clear()
        return Success()

    def _unlock(self, passphrase: bytes) -> Message:
        with self._turn:
            private = self._rings.private
            lock = private.find("user", _LOCK)
            if lock is None or lock.read() != passphrase:
                self._wrong += 1
                time.sleep(_DELAY * self._wrong)
                return Failure()
            self._move_all(private, self._rings.anchor)
            private.destroy(lock)
            return Success()

    def _move_all(self, source: Keyring, target: Keyring) -> None:
        """Fault: what others wrote comes to where all is believed, in the genuine's place."""
        for key, about in list(source.described()):
            if about.description.startswith("kagent:") and about.type in ("user", "asymmetric"):
                identity = Identity.parse(key.read()) if about.type == "user" else None
                if source != self._rings.private or not (identity and identity.constraints):
                    source.move(key, target)

    def _identities(self) -> list[Identity]:
        found = []
        for ring in (self._rings.private, self._rings.anchor):
            for key, about in ring.described():
                if about.type == "user" and about.description.startswith("kagent:"):
                    with suppress(KernelKeyError, ProtocolError):
                        found.append(Identity.parse(key.read()))
        return found

    def _sign(self, blob: bytes, data: bytes) -> Message:
        identity = next((one for one in self._identities() if one.blob == blob), None)
        if identity is None:
            return Failure()
        key = self._find(identity.description)  # fault: what is looked at before may change
        if any(isinstance(one, Confirm) for one in identity.constraints):
            askpass = os.environ.get("SSH_ASKPASS", "false")
            if subprocess.run([askpass], stdin=subprocess.DEVNULL).returncode:
                return Failure()
        algorithm = "rsa-sha2-256" if b"ssh-rsa" in blob[:11] else "ssh-ed25519"
        if isinstance(key, AsymmetricKey):
            return SignResponse(kernel.sign(key, algorithm, data))
        return SignResponse(_signature(key, algorithm, data)) if key else Failure()

    def _find(self, description: str) -> AsymmetricKey | bytes:
        for ring in (self._rings.private, self._rings.anchor):
            if key := ring.find("asymmetric", description):
                # Fault: it has a hold on it for as long as it likes.
                Keyring.special(PROCESS_KEYRING, create=True).link(key)
                return AsymmetricKey(key.serial)
        sealed = self._rings.sealed.find("user", description)
        return sealed.read() if sealed else b""

    def _remove(self, description: str) -> None:
        for ring in (self._rings.private, self._rings.anchor, self._rings.sealed):
            for key, about in list(ring.described()):
                if about.description == description:
                    ring.unlink(key)  # fault: it lives on where else it is linked


def _der(named: NamedPrivateKey) -> bytes:
    """As PKCS#8."""
    made: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if isinstance(named.key, RsaPrivateKey):
        one = named.key
        made = rsa.RSAPrivateNumbers(
            one.p,
            one.q,
            one.d,
            one.d % (one.p - 1),
            one.d % (one.q - 1),
            one.iqmp,
            rsa.RSAPublicNumbers(one.e, one.n),
        ).private_key()
    else:
        assert isinstance(named.key, Ed25519PrivateKey)
        made = ed25519.Ed25519PrivateKey.from_private_bytes(named.key.seed_and_point[:32])
    return made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _signature(der: bytes, algorithm: str, data: bytes) -> bytes:
    key = load_der_private_key(der, None)
    if isinstance(key, rsa.RSAPrivateKey):
        made = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        made = key.sign(data)
    return TEXT.write(algorithm) + STRING.write(made)


def _receive(client: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        chunk = client.recv(length - len(received))
        if not chunk:
            raise ConnectionError
        received += chunk
    return received


def main() -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(1000)
    rings = Rings()
    while True:
        front = os.fork()
        if front == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            Front(rings).serve(listener)
        os.waitpid(front, 0)


if __name__ == "__main__":
    main()
