"""OpenSSL's command, for what the library doesn't open.  For a user's own commands: not for those
that root runs for others, since it is the user's PATH that finds it.
"""

from __future__ import annotations

import os
import subprocess

_FORM = "openssl pkey {}-in FILE -aes256 -out NEW"
CONVERT = f"to convert the key: {_FORM.format('')}"
_CONVERT_OLD = _FORM.format("-provider legacy -provider default ")


class CipherMissing(Exception):
    """The command, or a cipher of it, isn't there; the text says how the key can be converted."""


def opened(data: bytes, passphrase: bytes) -> bytes:
    """A private key in PEM as DER, decrypted.  It travels through pipes only.

    Raises CipherMissing, and ValueError whatever else is wrong.
    """
    read, write = os.pipe()
    try:
        # Before anybody reads: a passphrase fits into a pipe.  An empty one too, lest it be asked.
        os.set_blocking(write, False)
        os.write(write, passphrase + b"\n")
        told = subprocess.run(
            ["openssl", "pkey", "-passin", f"fd:{read}", "-outform", "DER"],
            input=data,
            capture_output=True,
            pass_fds=[read],
        )
    except OSError as error:
        raise CipherMissing(f"openssl(1) is needed, or elsewhere, {CONVERT}") from error
    finally:
        os.close(read)
        os.close(write)
    if told.returncode == 0:
        return told.stdout
    if b"evp_fetch" in told.stderr:
        # For decades out of use: OpenSSL 3 has them apart.
        raise CipherMissing(f"it is an old one; to convert the key: {_CONVERT_OLD}")
    raise ValueError("not opened")
