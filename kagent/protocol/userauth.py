# What OpenSSH's programs ask an agent to sign, besides certificates, as far as the data itself
# shows: a login (RFC 4252 section 7; OpenSSH's PROTOCOL section 3.1 for the host-bound form), or a
# signed message (PROTOCOL.sshsig).
#
# A signature that is meant for one must not serve as the other, so only the exact form counts, to
# the last byte; and only with the key that signs it.
"""Logins and signed messages, recognised in what is to be signed."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .algorithms import key_type_of
from .publickey import PUBLIC_KEY, PublicKey
from .wire import BYTE, STRING, TEXT, ProtocolError, Reader

_USERAUTH_REQUEST = 50  # RFC 4252 section 6
_SERVICE = "ssh-connection"
_PLAIN = "publickey"
_HOST_BOUND = "publickey-hostbound-v00@openssh.com"
_WITH_SIGNATURE = 1
_SSHSIG = b"SSHSIG"


class Login(NamedTuple):
    """A login as `user`; `host_key` is that of the host that it is bound to, if it is."""

    session_id: bytes
    user: str
    host_key: PublicKey | None


class SignedMessage(NamedTuple):
    """A message signed by ssh-keygen -Y, for use in `namespace` only."""

    namespace: str


ToBeSigned: TypeAlias = Login | SignedMessage


def recognise(data: bytes, signer: PublicKey, *, also_certified: bool = False) -> ToBeSigned | None:
    """What `data` is, to be signed with the key or certificate `signer`; None for anything else.

    With `also_certified`, a login with a certificate is one that the key signs which it certifies:
    ssh asks for that where it has both.
    """
    reader = Reader(data)
    try:
        if data.startswith(_SSHSIG):
            found: ToBeSigned = _read_signed_message(reader)
        else:
            found = _read_login(reader, signer, also_certified)
        reader.expect_end()
    except ProtocolError:
        return None
    return found


def _read_login(reader: Reader, signer: PublicKey, also_certified: bool) -> Login:
    session_id = STRING.read(reader)
    number = BYTE.read(reader)
    user, service, method = (TEXT.read(reader) for _ in range(3))
    signature = BYTE.read(reader)
    algorithm, blob = TEXT.read(reader), STRING.read(reader)
    # In nearly all logins it is the signer's blob to the byte, which has been parsed.
    key = signer if blob == signer.blob else PublicKey.parse(blob)
    host_key = PUBLIC_KEY.read(reader) if method == _HOST_BOUND else None
    form = (number, service, signature)
    if form != (_USERAUTH_REQUEST, _SERVICE, _WITH_SIGNATURE) or not session_id:
        raise ProtocolError("no login")
    if method not in (_PLAIN, _HOST_BOUND):
        raise ProtocolError("no login with a key")
    certified = also_certified and key.plain_blob == signer.blob
    if not (key.is_same(signer) or certified) or key_type_of(algorithm) != key.type:
        raise ProtocolError("no login with this key")
    return Login(session_id, user, host_key)


def _read_signed_message(reader: Reader) -> SignedMessage:
    reader.take(len(_SSHSIG))
    namespace = TEXT.read(reader)
    STRING.read(reader)  # reserved
    TEXT.read(reader)  # hash algorithm
    STRING.read(reader)  # the message's hash
    return SignedMessage(namespace)
