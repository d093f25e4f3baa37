"""Private keys in files, as values.  Bytes in, a key out: no files are opened here.

For short-lived processes only, as everything that can hold a private key.
"""

from .either import parse, parse_any
from .errors import KeyFileError, WrongPassphrase
from .openssh import public_key

__all__ = ["KeyFileError", "WrongPassphrase", "parse", "parse_any", "public_key"]
