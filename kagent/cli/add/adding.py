"""Keys from files and tokens into the agent, with certificates and constraints (ssh-add.c)."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from ... import log
from ...openssh.times import timeframe
from ...protocol.constraints import PermittedHop, SkProvider
from ...protocol.messages import AddIdConstrained, AddIdentity
from ...protocol.publickey import Certificate, PublicKey
from ...text import as_it_came
from ..client import AgentError, Client
from . import keyfiles
from .options import Options

if TYPE_CHECKING:
    from ...protocol.privatekey import NamedPrivateKey

_FOREVER = 2**64 - 1
_LONGEST_LIFETIME = 2**31 - 1  # seconds
_GRACE = 5 * 60  # seconds for which an expired certificate stays, as clocks differ


class Adder:
    """Adds keys as the options say.  Methods return whether it went well."""

    def __init__(self, client: Client, options: Options, hops: tuple[PermittedHop, ...]) -> None:
        self._client = client
        self._options = options
        self._hops = hops
        self._report = options.report
        self._passphrase: bytes | None = None  # the last that was right: others may have it too

    def add_file(self, name: str) -> bool:
        """Add the key in a file and the certificate beside it; "-" is standard input."""
        data = self._read(name)
        if data is None:
            return False
        name = "(stdin)" if name == "-" else name
        found = self._decrypt(data, name)
        if found is None:
            self._passphrase = None
            return False
        key, comment = found[0], found[1] or name
        options = self._options
        added = False
        if not options.certificates_only:
            added = self._add_key(key, comment, name)
        if not options.keys_only:
            certified = self._add_certificate(key, comment, name)
            # ssh-add -C ends with 1 even then; its manual says 0 on success.
            added = added or (certified and options.certificates_only)
        return added

    def add_resident(self) -> bool:
        """Add the keys that a FIDO token has itself."""
        from ...openssh.helpers import HelperError
        from ...openssh.skhelper import load_resident
        from . import prompt

        pin = b""
        if self._options.asks_pin:
            pin = prompt.passphrase("Enter PIN for authenticator: ", self._report)
        log.configure(to_stderr=True, verbose=self._report.verbosity > 0)
        try:
            keys = load_resident(self._options.provider, os.fsdecode(pin))
        except HelperError as error:
            self._report.error(f"Unable to load resident keys: {error}")
            return False
        return bool(keys) and all([self._add_resident(key) for key in keys])

    def _add_resident(self, key: NamedPrivateKey) -> bool:
        public = PublicKey.parse(key.public_blob)
        name = f"{public.kind} {public.fingerprint(self._options.hash_name)}"
        lifetime = self._options.lifetime
        try:
            self._send(key, str(public.numbers.get("application", "")), lifetime)
        except AgentError:
            self._report.error(f"Unable to add key {name}")
            self._report.explain(self._client, self._options.own)
            return False
        self._report.done(f"Resident identity added: {name}")
        self._tell_constraints(lifetime)
        return True

    def _read(self, name: str) -> bytes | None:
        try:
            return keyfiles.private_bytes(name)
        except keyfiles.TooOpen as error:
            sys.stderr.write(str(error))
        except OSError as error:
            self._report.tell(f"{name}: {error.strerror}")
        except keyfiles.Unreadable as error:
            self._report.tell(f'Error loading key "{name}": {error}')
        return None

    def _decrypt(self, data: bytes, name: str) -> tuple[NamedPrivateKey, str] | None:
        from ...private.keyfile import KeyFileError, WrongPassphrase, parse
        from . import prompt

        attempts = [b""] if self._passphrase is None else [b"", self._passphrase]
        will_confirm = " (will confirm each use)" if self._options.confirm else ""
        question = "Enter passphrase for"
        try:
            while True:
                for attempt in attempts:
                    try:
                        found = parse(data, attempt, by_command=True)
                    except WrongPassphrase:
                        continue
                    self._passphrase = attempt or self._passphrase
                    return found
                answer = prompt.passphrase(f"{question} {name}{will_confirm}: ", self._report)
                if not answer:
                    return None
                attempts = [answer]
                question = "Bad passphrase, try again for"
        except KeyFileError as error:
            self._report.tell(f'Error loading key "{name}": {error}')
            return None

    def _add_key(self, key: NamedPrivateKey, comment: str, name: str) -> bool:
        lifetime = self._options.lifetime
        try:
            self._send(key, comment, lifetime)
        except AgentError as error:
            self._report.tell(f'Could not add identity "{name}": {error}')
            self._report.explain(self._client, self._options.own)
            return False
        self._report.done(f"Identity added: {name} ({as_it_came(comment)})")
        self._tell_constraints(lifetime)
        return True

    def _add_certificate(self, key: NamedPrivateKey, comment: str, name: str) -> bool:
        path = f"{name}-cert.pub"
        try:
            public, _ = keyfiles.public_key(path)
        except keyfiles.Unreadable:
            return False
        if public.plain_blob != key.public_blob:
            self._report.error(f"Certificate {path} does not match private key {name}")
            return False
        certificate = public.certificate
        if certificate is None:
            self._report.error(f"Certificate {path} is a plain key")
            return False
        lifetime = self._options.lifetime
        if self._options.until_expiry:
            left = _lifetime(certificate, lifetime)
            if left is None:
                self._report.error(f"Certificate {path} has already expired; ignored")
                return False
            lifetime = left
        shown = f"{path} ({certificate.key_id})"
        try:
            self._send(key.certified(public), comment, lifetime)
        except AgentError as error:
            self._report.error(f"Certificate {shown} add failed: {error}")
            self._report.explain(self._client, self._options.own)
            return False
        self._report.done(f"Certificate added: {shown}")
        self._tell_constraints(lifetime)
        return True

    def _send(self, key: NamedPrivateKey, comment: str, lifetime: int) -> None:
        provider = SkProvider(self._options.provider) if key.type.startswith("sk-") else None
        constraints = self._options.constraints(lifetime, self._hops, provider=provider)
        if constraints:
            self._client.do(AddIdConstrained(key, comment, constraints))
        else:
            self._client.do(AddIdentity(key, comment))

    def _tell_constraints(self, lifetime: int) -> None:
        if lifetime:
            self._report.done(f"Lifetime set to {timeframe(lifetime)}")
        if self._options.idle:
            span = timeframe(self._options.idle)
            self._report.done(f"The key is removed when it is not used for {span}")
        if self._options.confirm:
            self._report.done("The user must confirm each use of the key")
        elif self._options.confirm_forwarded:
            self._report.done("The user must confirm each use of the key from another machine")
        if self._report.verbosity:
            explanation = self._client.explanation()
            if explanation:
                self._report.debug(1, explanation)


def _lifetime(certificate: Certificate, asked: int) -> int | None:
    """How long the agent shall hold a certificate, in seconds; 0 is for ever, None not at all."""
    if certificate.valid_before == _FOREVER:
        return asked
    left = certificate.valid_before + _GRACE - int(time.time())
    return min(left, asked or _LONGEST_LIFETIME) if left > 0 else None
