"""OpenSSL's command, for what the library doesn't open."""

from __future__ import annotations

import os
import subprocess

_CONVERT = "openssl pkey {}-in FILE -aes256 -out NEW"


class CipherMissing(Exception):
    """The command, or a cipher of it, isn't there; the text says how the key can be converted."""


def opened(data: bytes, passphrase: bytes, *, der: bool) -> bytes:
    """A private key, PEM or DER, as DER and decrypted.  It travels through pipes only.

    Raises CipherMissing, and ValueError whatever else is wrong.
    """
    read, write = os.pipe()
    try:
        # Before anybody reads: a passphrase fits into a pipe.  An empty one too, lest it be asked.
        os.set_blocking(write, False)
        os.write(write, passphrase + b"\n")
        form = "DER" if der else "PEM"
        told = subprocess.run(
            ["openssl", "pkey", "-inform", form, "-passin", f"fd:{read}", "-outform", "DER"],
            input=data,
            capture_output=True,
            pass_fds=[read],
        )
    except OSError as error:
        convert = _CONVERT.format("")
        raise CipherMissing(f"install openssl, or convert it elsewhere: {convert}") from error
    finally:
        os.close(read)
        os.close(write)
    if told.returncode == 0:
        return told.stdout
    if b"evp_fetch" in told.stderr:
        # For decades out of use: OpenSSL 3 has them apart.
        convert = _CONVERT.format("-provider legacy -provider default ")
        raise CipherMissing(f"it is an old one; to convert the key: {convert}")
    raise ValueError("not opened")
