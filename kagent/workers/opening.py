"""What a source worker has left becomes what a client would have sent.  For load workers."""

from __future__ import annotations

import os
import socket

from ..jobs.causes import Cause
from ..private import keyfile
from ..private.keyfile import KeyFileError, ManyPrimes, WrongPassphrase, parse
from ..private.library import refuse
from ..protocol.constraints import CONSTRAINTS, Constraint, SkProvider
from ..protocol.messages import AddIdConstrained
from ..protocol.publickey import PublicKey
from ..protocol.wire import STRING, TEXT, Record, field, nested


class Material(Record, repr=False):
    """What `place` has given for the key with the public half `blob`, and its passphrase, if any.

    The other fields are those of the key that is to be held.
    """

    blob: bytes = field(STRING)
    comment: str = field(TEXT)
    constraints: tuple[Constraint, ...] = field(nested(CONSTRAINTS))
    place: str = field(TEXT)
    content: bytes = field(STRING)
    passphrase: bytes = field(STRING)


def prepare() -> None:
    """Import what is needed once no file can be opened any more."""
    keyfile.prepare()


def received(source: int) -> bytes:
    """All that is there; who has written it has ended."""
    with socket.socket(fileno=source) as stream, stream.makefile("rb") as file:
        return file.read()


def opened(material: Material) -> AddIdConstrained:
    """The key, which is the one that it is to be.  Raises KeyRefused, ProtocolError."""
    try:
        key, _ = parse(material.content, material.passphrase)
    except WrongPassphrase as error:
        refuse(Cause.SOURCE_PASSPHRASE, f"the passphrase for {material.place} is wrong", error)
    except ManyPrimes as error:
        refuse(Cause.KEY_TYPE, f"{material.place}: {error}", error)
    except KeyFileError as error:
        refuse(Cause.INVALID_KEY, f"{material.place}: {error}", error)
    wanted = PublicKey.parse(material.blob)
    if key.public_blob != wanted.plain_blob:
        refuse(Cause.SOURCE, f"{material.place} gives another key than [[identity]] says")
    if wanted.certificate:
        key = key.certified(wanted)
    constraints = material.constraints
    if key.type.startswith("sk-"):
        constraints += (SkProvider(os.environ.get("SSH_SK_PROVIDER", "internal")),)
    return AddIdConstrained(key, material.comment, constraints)
