"""Any private key file."""

from __future__ import annotations

from ..protocol.privatekey import NamedPrivateKey
from . import openssh, pem
from .errors import KeyFileError


def parse(data: bytes, passphrase: bytes = b"") -> tuple[NamedPrivateKey, str]:
    """The key and its comment, "" where the format has none.

    Takes OpenSSH's format and what OpenSSL reads: PKCS#1, SEC1 and PKCS#8, as PEM.  Raises
    WrongPassphrase, also for an encrypted key and no passphrase, and KeyFileError.
    """
    if openssh.is_openssh(data):
        return openssh.parse(data, passphrase)
    key = pem.parse(data, passphrase)
    if key is None:
        raise KeyFileError("error in libcrypto")
    return key, ""
