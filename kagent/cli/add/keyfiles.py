"""Key files on disk, found and read as OpenSSH's programs do (authfile.c)."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ...protocol.publickey import PublicKey, parse_line
from ...protocol.wire import ProtocolError

_LARGEST = 1 << 20  # bytes; no key comes near it

_TOO_OPEN = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Permissions 0{mode:03o} for '{name}' are too open.
It is required that your private key files are NOT accessible by others.
This private key will be ignored.
"""


class Unreadable(Exception):
    """No such key can be had from that file; the text is OpenSSH's."""


class TooOpen(Exception):
    """Others may read the private key; the text is the warning, with OpenSSH's line ends."""


def private_bytes(name: str) -> bytes:
    """What the private key file `name` holds; "-" is standard input.

    Raises OSError if it can't be opened, TooOpen, Unreadable.
    """
    descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        if descriptor != 0 and about.st_uid == os.getuid() and about.st_mode & 0o077:
            text = _TOO_OPEN.format(mode=about.st_mode & 0o777, name=name)
            raise TooOpen(text.replace("\n", "\r\n"))
        return _read(descriptor)
    finally:
        if descriptor != 0:
            os.close(descriptor)


def _read(descriptor: int) -> bytes:
    data = b""
    try:
        while chunk := os.read(descriptor, _LARGEST):
            data += chunk
            if len(data) > _LARGEST:
                raise Unreadable("invalid format")
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    return data


def public_key(name: str) -> tuple[PublicKey, str | None]:
    """The public key of the pair `name` and its comment, from NAME, NAME.pub or the private key.

    Raises Unreadable.
    """
    for path in (name, f"{name}.pub"):
        try:
            return _public_line(path)
        except Unreadable:
            continue
    from ...private.keyfile import KeyFileError
    from ...private.keyfile import public_key as public_half

    try:
        return public_half(Path(name).read_bytes()), None
    except (OSError, KeyFileError) as error:
        # Whatever was wrong: OpenSSH says so too.
        raise Unreadable(os.strerror(errno.ENOENT)) from error


def public_lines(text: str) -> Iterator[tuple[PublicKey, str]]:
    """The keys in lines of a .pub file; a bad line is reported and passed over."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            yield _read_line(line)
        except Unreadable as error:
            sys.stderr.write(f"(stdin):{number}: invalid key: {error}\r\n")


def _public_line(path: str) -> tuple[PublicKey, str]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        if line.startswith("-----BEGIN"):
            break
        try:
            key, comment = _read_line(line)
        except Unreadable:
            continue
        return key, comment or path
    raise Unreadable("invalid format")


def _read_line(line: str) -> tuple[PublicKey, str]:
    """Raises Unreadable, also for a certificate that its authority hasn't signed."""
    try:
        key, comment = parse_line(line)
    except ProtocolError as error:
        raise Unreadable("invalid format") from error
    if key.certificate is not None:
        # Slow to import, and most keys have no certificate.
        from ...private.verify import BadSignature, check_certificate

        try:
            check_certificate(key)
        except BadSignature as error:
            raise Unreadable("incorrect signature") from error
    return key, comment
