"""Private keys in files, as values.  Bytes in, a key out: no files are opened here.

For short-lived processes only, as everything that can hold a private key.
"""

from .either import is_encrypted, parse, parse_any, prepare
from .errors import KeyFileError, ManyPrimes, WrongPassphrase
from .openssh import public_key

__all__ = [
    "KeyFileError",
    "ManyPrimes",
    "WrongPassphrase",
    "is_encrypted",
    "parse",
    "parse_any",
    "prepare",
    "public_key",
]
