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
from ..protocol.refusals import Cause, Explained
from ..protocol.wire import BOOLEAN, STRING, TEXT, ProtocolError, Record, field

# The one that ssh-sk-helper has built in, for tokens at a USB port; in any case of letters.
_INTERNAL = "internal"

TokenKey: TypeAlias = (
    SkEcdsaPrivateKey | SkEd25519PrivateKey | SkEcdsaCertifiedKey | SkEd25519CertifiedKey
)


class NotTaken(Explained):
    """The key can't be held as asked; the text says why."""


class DeviceKey(Record):
    """A token's key: its handle, application and flags, and the library that talks to the token.

    None of it is a secret, but a provider is code, and the name of one is only what somebody says.
    """

    key: NamedPrivateKey = field(PRIVATE_KEY)
    provider: str = field(TEXT)


class Handle(Record):
    """A token's key as the keeper holds it: what a load worker has left, and what that can't say.

    `from_remote` is whether the connection was to a host that the agent is forwarded to; `left`
    should be a DeviceKey, by the word of a process that has read what a client sent.
    """

    from_remote: bool = field(BOOLEAN)
    left: bytes = field(STRING)


class Providers(NamedTuple):
    """Which provider libraries are taken: ssh-agent -P and -O allow-remote-pkcs11."""

    allowed: str = "/usr/lib*/*,/usr/local/lib*/*"
    remote: bool = False

    def take(
        self, named: NamedPrivateKey, constraints: Iterable[Constraint], *, from_remote: bool
    ) -> DeviceKey | None:
        """What to keep of a token's key; None for other keys.

        `from_remote` is whether anybody has tried to bind the connection to a host, as forwarding
        does.  The provider is its library's path as that is now, with no symbolic link in it.
        Raises NotTaken.
        """
        given = [one.path for one in constraints if isinstance(one, SkProvider)]
        key = named.key
        if not isinstance(key, TokenKey):
            if given:
                raise NotTaken(
                    Cause.KEY_TYPE,
                    f"cannot add provider: {named.type} is not an authenticator-hosted key",
                )
            return None
        try:
            about = PublicKey.parse(named.public_blob)
        except ProtocolError as error:
            raise NotTaken(Cause.INVALID_KEY, f"malformed {named.type} key: {error}") from error
        # A certified key says some things twice: the rules go by one, and the token by the other.
        fits = [getattr(key, name, value) == value for name, value in about.numbers.items()]
        if about.type != named.type or not all(fits):
            raise NotTaken(Cause.CERTIFICATE, "certificate does not match key")
        if not given:
            raise NotTaken(
                Cause.NO_PROVIDER, "a FIDO key without a provider can't sign; ssh-add -S names one"
            )
        if given[0].lower() == _INTERNAL:
            return DeviceKey(named, _INTERNAL)
        return DeviceKey(named, self.library(given[0], from_remote=from_remote))

    def take_again(self, handle: Handle, blob: bytes) -> DeviceKey:
        """What to sign with for the identity `blob`, where a handle is used and not just loaded.

        All rules once more, on what is used then: a load worker may have been taken over by the
        key that it read, and left what it liked; and a library may have become a link to another.
        Raises NotTaken, and ProtocolError for a damaged handle.
        """
        left = DeviceKey.parse(handle.left)
        provider = SkProvider(left.provider)
        held = self.take(left.key, [provider], from_remote=handle.from_remote)
        if held is None or held.key.public_blob != blob:
            raise NotTaken(Cause.FAULT, "what is held is another key's handle")
        return held

    def library(self, provider: str, *, from_remote: bool) -> str:
        """Where the path of a provider leads to, which is what must be allowed.

        For PKCS#11 tokens as well.  `from_remote` as for `take`.  Raises NotTaken.
        """
        if from_remote and not self.remote:
            raise NotTaken(
                Cause.REMOTE_PROVIDER,
                f"provider {provider[:100]!r}: remote addition of providers is disabled, "
                "see kagent -O allow-remote-pkcs11",
            )
        try:
            found = os.path.realpath(provider.encode("utf-8", "surrogateescape"), strict=True)
        except OSError as error:
            raise NotTaken(
                Cause.NO_PROVIDER, f"provider {provider[:100]!r}: {error.strerror}"
            ) from error
        path = found.decode("utf-8", "surrogateescape")
        if not matches_list(path, self.allowed):
            raise NotTaken(Cause.PROVIDER, f"provider {path} not allowed, see kagent -P")
        return path


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
