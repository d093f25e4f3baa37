"""Custody `device`: a FIDO token holds the key, and what is kept here only names it to the token.

The rules are ssh-agent's: which keys and provider libraries are taken, and what a key may be asked
to sign.  Nothing here talks to a token: that is `workers.device`'s job.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from ..protocol.constraints import Constraint, SkProvider
from ..protocol.patterns import matches_list
from ..protocol.privatekey import (
    PRIVATE_KEY,
    NamedPrivateKey,
    SkEcdsaCertifiedKey,
    SkEcdsaPrivateKey,
    SkEd25519CertifiedKey,
    SkEd25519PrivateKey,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import TEXT, ProtocolError, Record, field

# The one that ssh-sk-helper has built in, for tokens at a USB port; in any case of letters.
_INTERNAL = "internal"

TokenKey: TypeAlias = (
    SkEcdsaPrivateKey | SkEd25519PrivateKey | SkEcdsaCertifiedKey | SkEd25519CertifiedKey
)


class NotTaken(Exception):
    """The key can't be held as asked; the text says why."""


class DeviceKey(Record):
    """A token's key: its handle, application and flags, and the library that talks to the token.

    None of it is a secret, but a provider is code: the record belongs where only what `Providers`
    has passed can be written.
    """

    key: NamedPrivateKey = field(PRIVATE_KEY)
    provider: str = field(TEXT)


class Providers(NamedTuple):
    """Which provider libraries are taken: ssh-agent -P and -O allow-remote-pkcs11."""

    allowed: str = "/usr/lib*/*,/usr/local/lib*/*"
    remote: bool = False

    def take(
        self, named: NamedPrivateKey, constraints: Iterable[Constraint], *, from_remote: bool
    ) -> DeviceKey | None:
        """What to keep of a token's key; None for other keys.

        `from_remote` is whether anybody has tried to bind the connection to a host, as forwarding
        does.  Raises NotTaken.
        """
        given = [one.path for one in constraints if isinstance(one, SkProvider)]
        key = named.key
        if not isinstance(key, TokenKey):
            if given:
                raise NotTaken(
                    f"cannot add provider: {named.type} is not an authenticator-hosted key"
                )
            return None
        try:
            about = PublicKey.parse(named.public_blob)
        except ProtocolError as error:
            raise NotTaken(f"malformed {named.type} key: {error}") from error
        # A certified key says some things twice: the rules go by one, and the token by the other.
        fits = [getattr(key, name, value) == value for name, value in about.numbers.items()]
        if about.type != named.type or not all(fits):
            raise NotTaken("certificate does not match key")
        if not given:
            raise NotTaken("a FIDO key without a provider can't sign; ssh-add -S names one")
        if given[0].lower() == _INTERNAL:
            return DeviceKey(named, _INTERNAL)
        return DeviceKey(named, self.library(given[0], from_remote=from_remote))

    def library(self, provider: str, *, from_remote: bool) -> str:
        """Where the path of a provider leads to, which is what must be allowed.

        For PKCS#11 tokens as well.  `from_remote` as for `take`.  Raises NotTaken.
        """
        if from_remote and not self.remote:
            raise NotTaken(
                f"provider {provider[:100]!r}: remote addition of providers is disabled, "
                "see kagent -O allow-remote-pkcs11"
            )
        try:
            found = os.path.realpath(provider.encode("utf-8", "surrogateescape"), strict=True)
        except OSError as error:
            raise NotTaken(f"provider {provider[:100]!r}: {error.strerror}") from error
        path = found.decode("utf-8", "surrogateescape")
        self.check(path)
        return path

    def check(self, path: str) -> None:
        """Raises NotTaken unless what is there, as `take` or `library` gave it, is allowed."""
        if path != _INTERNAL and not matches_list(path, self.allowed):
            raise NotTaken(f"provider {path} not allowed, see kagent -P")


class WebSafety(NamedTuple):
    """What keys made for the web may sign: ssh-agent -O no-restrict-websafe and websafe-allow=…"""

    restricted: bool = True
    allowed: str = "ssh:*"

    def demands_ssh(self, key: PublicKey) -> bool:
        """Whether `key` may sign nothing but a login or an SSHSIG (ssh-keygen -Y).

        So that a client can't have a web site's challenge signed.
        """
        application = key.numbers.get("application")
        return (
            self.restricted
            and application is not None
            and not matches_list(str(application), self.allowed)
        )
