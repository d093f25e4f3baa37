"""Any private key file."""

from __future__ import annotations

from ..protocol.privatekey import NamedPrivateKey, RsaPrivateKey
from . import openssh, pem
from .errors import KeyFileError

_SHORTEST_RSA = 1024  # bits


def parse(data: bytes, passphrase: bytes = b"") -> tuple[NamedPrivateKey, str]:
    """The key and its comment, "" where the format has none.

    Takes OpenSSH's format and what OpenSSL reads: PKCS#1, SEC1 and PKCS#8, as PEM.  Raises
    WrongPassphrase, also for an encrypted key and no passphrase, and KeyFileError.
    """
    if openssh.is_openssh(data):
        key, comment = openssh.parse(data, passphrase)
    else:
        key, comment = pem.parse(data, passphrase), ""
    if isinstance(key.key, RsaPrivateKey) and key.key.n.bit_length() < _SHORTEST_RSA:
        raise KeyFileError("Invalid key length")
    return key, comment
