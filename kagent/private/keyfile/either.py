"""Any private key file."""

from __future__ import annotations

from ...protocol.algorithms import RSA_BITS
from ...protocol.privatekey import NamedPrivateKey, RsaPrivateKey
from . import openssh, pem
from .errors import KeyFileError

_DER_SEQUENCE = b"\x30"  # X.690: what every key in DER is


def parse(
    data: bytes, passphrase: bytes = b"", *, by_command: bool = False
) -> tuple[NamedPrivateKey, str]:
    """The key and its comment, "" where the format has none.

    Takes OpenSSH's format and what OpenSSL reads: PKCS#1, SEC1 and PKCS#8, as PEM; with
    `by_command` also what takes openssl(1), which a user's own command may start.  Raises
    WrongPassphrase, also for an encrypted key and no passphrase, and KeyFileError.
    """
    if openssh.is_openssh(data):
        key, comment = openssh.parse(data, passphrase)
    else:
        key, comment = pem.parse(data, passphrase, by_command=by_command), ""
    return _checked(key), comment


def is_encrypted(data: bytes) -> bool:
    """Whether `parse` wants a passphrase for it.  Raises KeyFileError if it can be no key."""
    if openssh.is_openssh(data):
        return openssh.is_encrypted(data)
    # RFC 1421 section 4.6.1.1, or the name of a PKCS#8 key that is.
    return b"ENCRYPTED" in data


def prepare() -> None:
    """Import what opening a key takes, for who can't do so later."""
    openssh.prepare()


def parse_any(data: bytes, passphrase: bytes = b"") -> NamedPrivateKey:
    """The key, in a form that `parse` takes or as DER, which OpenSSH doesn't."""
    if data.startswith(_DER_SEQUENCE):
        return _checked(pem.parse(data, passphrase, der=True))
    return parse(data.lstrip(), passphrase)[0]


def _checked(key: NamedPrivateKey) -> NamedPrivateKey:
    if isinstance(key.key, RsaPrivateKey) and key.key.n.bit_length() < RSA_BITS[0]:
        raise KeyFileError("Invalid key length")
    return key
