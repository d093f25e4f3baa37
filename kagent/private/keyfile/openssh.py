"""OpenSSH's format for private keys (PROTOCOL.key).

Ours and not the library's, because ADD_IDENTITY carries the same bytes: nothing is converted.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

try:
    # Since cryptography 43 it lives among the ciphers that nobody should use.
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
except ImportError:
    from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES

from ...protocol.privatekey import PRIVATE_KEY, NamedPrivateKey
from ...protocol.publickey import PublicKey, UnknownKeyType
from ...protocol.wire import STRING, TEXT, UINT32, ProtocolError, Reader
from .errors import KeyFileError, WrongPassphrase

_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_END = b"-----END OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"
_INVALID = "invalid format"
_MOST_ROUNDS = 1 << 20  # as OpenSSH 10.6: hours
_UNSUPPORTED_CIPHER = "key encrypted using unsupported cipher"


def is_openssh(data: bytes) -> bool:
    """Whether the file is of this format, well-formed or not."""
    return data.startswith(_BEGIN)


@dataclass(frozen=True)
class _Envelope:
    cipher: str
    kdf: str
    kdf_options: bytes
    public: PublicKey
    encrypted: bytes
    tag: bytes


def public_key(data: bytes) -> PublicKey:
    """The public half, which isn't encrypted.  Raises KeyFileError."""
    return _open(data).public


def is_encrypted(data: bytes) -> bool:
    """Whether a passphrase opens it.  Raises KeyFileError."""
    return _open(data).kdf != "none"


def prepare() -> None:
    """Import what `parse` takes besides."""
    import bcrypt  # noqa: F401

    with suppress(ImportError):  # an older library has it elsewhere
        from cryptography.hazmat.decrepit.ciphers import algorithms as old  # noqa: F401


def parse(data: bytes, passphrase: bytes) -> tuple[NamedPrivateKey, str]:
    """The key and its comment.  Raises WrongPassphrase, KeyFileError."""
    envelope = _open(data)
    reader = Reader(_decrypt(envelope, passphrase))
    try:
        if UINT32.read(reader) != UINT32.read(reader):
            raise WrongPassphrase
        key = PRIVATE_KEY.read(reader)
        comment = TEXT.read(reader)
        padding = reader.rest()
    except UnknownKeyType as error:
        raise KeyFileError("unknown or unsupported key type") from error
    except ProtocolError as error:
        raise KeyFileError(_INVALID) from error
    if padding != bytes(i & 0xFF for i in range(1, len(padding) + 1)):
        raise KeyFileError(_INVALID)
    if key.public_blob != envelope.public.blob:
        raise KeyFileError(_INVALID)
    return key, comment


def _open(data: bytes) -> _Envelope:
    body, end, _ = data[len(_BEGIN) :].partition(_END)
    if not is_openssh(data) or not end:
        raise KeyFileError(_INVALID)
    try:
        reader = Reader(base64.b64decode(b"".join(body.split()), validate=True))
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise KeyFileError(_INVALID)
        cipher, kdf, options = TEXT.read(reader), TEXT.read(reader), STRING.read(reader)
        if UINT32.read(reader) != 1:
            raise KeyFileError(_INVALID)
        public = PublicKey.parse(STRING.read(reader))
        return _Envelope(cipher, kdf, options, public, STRING.read(reader), reader.rest())
    except UnknownKeyType as error:
        raise KeyFileError("unknown or unsupported key type") from error
    except (ProtocolError, binascii.Error) as error:
        raise KeyFileError(_INVALID) from error


# Name -> lengths in bytes of key, IV and tag.
_CIPHERS = {
    "none": (0, 0, 0),
    "3des-cbc": (24, 8, 0),
    "aes128-cbc": (16, 16, 0),
    "aes192-cbc": (24, 16, 0),
    "aes256-cbc": (32, 16, 0),
    "aes128-ctr": (16, 16, 0),
    "aes192-ctr": (24, 16, 0),
    "aes256-ctr": (32, 16, 0),
    "aes128-gcm@openssh.com": (16, 12, 16),
    "aes256-gcm@openssh.com": (32, 12, 16),
    "chacha20-poly1305@openssh.com": (64, 0, 16),
}


def _decrypt(envelope: _Envelope, passphrase: bytes) -> bytes:
    name = envelope.cipher
    if name not in _CIPHERS or envelope.kdf not in ("none", "bcrypt"):
        raise KeyFileError(_UNSUPPORTED_CIPHER)
    key_length, iv_length, tag_length = _CIPHERS[name]
    block = 16 if name.startswith("aes") else 8
    if (
        (envelope.kdf == "none" and name != "none")
        or len(envelope.encrypted) % block
        or len(envelope.tag) != tag_length
    ):
        raise KeyFileError(_INVALID)
    if envelope.kdf == "none":
        return envelope.encrypted
    if not passphrase:
        raise WrongPassphrase
    if name == "none":
        return envelope.encrypted
    secret = _derive(envelope.kdf_options, passphrase, key_length + iv_length)
    key, iv = secret[:key_length], secret[key_length:]
    if name == "chacha20-poly1305@openssh.com":
        return _chacha20_poly1305(key, envelope.encrypted, envelope.tag)
    decryptor = _cipher(name, key, iv, envelope.tag).decryptor()
    try:
        return bytes(decryptor.update(envelope.encrypted) + decryptor.finalize())
    except InvalidTag as error:
        raise WrongPassphrase from error


def _derive(options: bytes, passphrase: bytes, length: int) -> bytes:
    import bcrypt

    try:
        reader = Reader(options)
        salt, rounds = STRING.read(reader), UINT32.read(reader)
        if rounds > _MOST_ROUNDS:
            told = f"its passphrase takes {rounds} rounds, and ssh does at most {_MOST_ROUNDS}"
            raise KeyFileError(told)
        return bcrypt.kdf(passphrase, salt, length, rounds, ignore_few_rounds=True)
    except KeyFileError:
        raise
    except ValueError as error:  # ProtocolError too
        raise KeyFileError(_INVALID) from error


def _cipher(name: str, key: bytes, iv: bytes, tag: bytes) -> Cipher[Any]:
    if name.startswith("3des"):
        return Cipher(TripleDES(key), modes.CBC(iv))
    if "gcm" in name:
        return Cipher(algorithms.AES(key), modes.GCM(iv, tag))
    return Cipher(algorithms.AES(key), (modes.CTR if "ctr" in name else modes.CBC)(iv))


def _chacha20_poly1305(key: bytes, encrypted: bytes, tag: bytes) -> bytes:
    # PROTOCOL.chacha20poly1305, for packet number 0: the first half of the key is for the
    # payload, block 0 of its stream is the Poly1305 key, and the payload begins at block 1.
    def stream(block: int) -> Any:
        nonce = block.to_bytes(8, "little") + bytes(8)
        return Cipher(algorithms.ChaCha20(key[:32], nonce), None).decryptor()

    try:
        Poly1305.verify_tag(stream(0).update(bytes(32)), encrypted, tag)
    except InvalidSignature as error:
        raise WrongPassphrase from error
    return bytes(stream(1).update(encrypted))
