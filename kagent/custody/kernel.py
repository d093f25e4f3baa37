"""Custody `kernel`: the key is an asymmetric key, and the kernel signs.

Nothing here can hold a private key.  Loading one is in `pkcs8`, which only workers import.
"""

from __future__ import annotations

import errno
import hashlib

from ..keyctl import AsymmetricKey, KeyRejected, Quota, RsaPublicKey
from ..protocol.algorithms import ALGORITHMS, KEY_TYPES
from ..protocol.publickey import PublicKey
from ..protocol.wire import STRING, TEXT

*_SIZES, _LARGEST = map(str, KEY_TYPES["ssh-rsa"].kernel_bits)
SIGNS_WITH = f"it signs with RSA keys of {', '.join(_SIZES)} and {_LARGEST} bits"

# In bits, as OpenSSL has it where keys are long.  Who verifies computes a time that grows with the
# exponent: a third of a second for the longest, in which the front does nothing else.
_LONGEST_EXPONENT = 64

# Of a user's quota; the rest is left to the user's other programs, and to kagent's own processes.
_MOST_OF_QUOTA = 0.75
# What an identity counts for which the kernel signs: the key and its record, with their
# descriptions and links, where there is big_key.
_KEYS, _BYTES = 2, 250

# Of the algorithms that the kernel can sign with.
_HASHES = {
    name: one.hash for name, one in ALGORITHMS.items() if KEY_TYPES[one.key_type].kernel_bits
}


def why_not(public: PublicKey) -> str:
    """Why no kernel signs with such a key; "" if one can.

    What can be said without the private half.  With it, `pkcs8.load` tries.
    """
    if not public.about.kernel_bits:
        return f"{public.type}: the kernel can't sign with this type of key; {SIGNS_WITH}"
    if public.bits not in public.about.kernel_bits:
        return f"the kernel can't sign with this {public.bits}-bit RSA key; {SIGNS_WITH}"
    exponent = int(public.numbers["e"]).bit_length()
    if exponent > _LONGEST_EXPONENT:
        return (
            f"the kernel doesn't sign with an RSA key of an exponent of {exponent} bits, which "
            "would keep others waiting; ssh-keygen makes keys with one of 17"
        )
    return ""


def room(uid: int) -> int | None:
    """For about how many more keys of that user the kernel may sign; None if that isn't known.

    What is more is sealed, which counts nothing.
    """
    quota = Quota.of(uid)
    return quota.room(_KEYS, _BYTES, up_to=_MOST_OF_QUOTA) if quota else None


def sign(key: AsymmetricKey, public: PublicKey, algorithm: str, data: bytes) -> bytes:
    """A signature as ssh sends it: string algorithm, string signature; `public` is the RSA key's.

    Blocks for milliseconds, without the GIL.  Raises KernelKeyError, also where the signature is
    another key's: whoever possesses the keyring can put one in the place of this.
    """
    if reason := why_not(public):  # and they can have written its record
        raise KeyRejected(errno.EKEYREJECTED, reason)
    hash_name = _HASHES[algorithm]
    digest = hashlib.new(hash_name, data, usedforsecurity=False).digest()
    made = key.sign(digest, hash_name, (public.bits + 7) // 8)
    numbers = RsaPublicKey(int(public.numbers["e"]), int(public.numbers["n"]))
    if not numbers.verify(made, digest, hash_name):
        raise KeyRejected(errno.EKEYREJECTED, "another key is in its place, load it again")
    return TEXT.write(algorithm) + STRING.write(made)
