"""A key from its backend to where the kernel can take it, checked on the way."""

from __future__ import annotations

from dataclasses import dataclass

from ..custody.configured import SYSTEM_FILE, Configuration, FetchFailure
from ..custody.kernel import why_not
from ..keyctl import PROCESS_KEYRING, KernelKeyError, Keyring
from ..private import pkcs8
from ..private.keyfile import KeyFileError, WrongPassphrase, parse_any
from ..private.library import KeyRefused, der, library_key
from ..protocol.publickey import PublicKey
from .backends import NotDelivered
from .policy import Rule


@dataclass(frozen=True)
class Delivery:
    """A key as the kernel takes it: unencrypted PKCS#8.  `expected` is whether it is known that
    this is the key that its users have configured."""

    payload: bytes
    public: PublicKey
    expected: bool


def fetch(rule: Rule, errors: int) -> Delivery:
    """Fetch a rule's key; programs write their complaints to the descriptor `errors`.

    Takes at most twice the rule's timeout.  Raises NotDelivered.
    """
    passphrase = b""
    if rule.passphrase:
        passphrase = rule.passphrase.fetch(rule.timeout, errors).rstrip(b"\r\n")
    printed = rule.backend.fetch(rule.timeout, errors)
    try:
        named = parse_any(printed, passphrase)
        public = PublicKey.parse(named.public_blob)
        if reason := why_not(public):
            raise NotDelivered(FetchFailure.UNUSABLE, reason)
        key = library_key(named)
        # The process keyring ends with this process.
        own = Keyring.special(PROCESS_KEYRING, create=True)
        own.unlink(pkcs8.load(key, named.type, "kagent-provision", own))
    except WrongPassphrase as error:
        told = (
            "the key is encrypted, and its passphrase is another"
            if rule.passphrase
            else ("the key is encrypted: the rule needs a passphrase")
        )
        raise NotDelivered(FetchFailure.UNUSABLE, told) from error
    except KeyFileError as error:
        raise NotDelivered(FetchFailure.UNUSABLE, f"no private key was given: {error}") from error
    except (KeyRefused, pkcs8.CannotSign) as error:
        raise NotDelivered(FetchFailure.UNUSABLE, str(error)) from error
    except KernelKeyError as error:
        raise NotDelivered(FetchFailure.FAILED, f"the kernel refused: {error}") from error
    return Delivery(der(key), public, _is_configured(rule.key, public))


def _is_configured(key: str, public: PublicKey) -> bool:
    """Whether it is the one in the system's configuration; raises NotDelivered for another."""
    identities = Configuration.read(SYSTEM_FILE).identities
    blobs = {one.public.plain_blob for one in identities if one.description == key}
    if blobs and public.plain_blob not in blobs:
        told = f"{public.fingerprint()} is not the key that {SYSTEM_FILE} has as {key}"
        raise NotDelivered(FetchFailure.UNUSABLE, told)
    return bool(blobs)
