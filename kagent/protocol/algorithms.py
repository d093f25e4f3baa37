# What is to be known of each type of key and of each algorithm for signatures, once for all of
# kagent (RFC 4253 section 6.6, RFC 5656, RFC 8332, RFC 8709, PROTOCOL.certkeys, PROTOCOL.u2f,
# draft-miller-sshm-mldsa44-ed25519-composite-sigs as OpenSSH 10.6 has it).
#
# Only names are here.  Those who compute look up by them what they compute with.
"""The facts of key types and of algorithms for signatures."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from typing import Any, NamedTuple

from .wire import MPINT, STRING, TEXT, Codec


class KeyType(NamedTuple):
    """A type of plain keys.

    `kind` is what ssh-add -l shows of it; `public` are the fields of the public half; `bits` is 0
    where keys have different sizes; with `kernel_bits` the Linux kernel can sign; `certified` is
    the type of its certificates, "" where the name follows the old rule.
    """

    name: str
    kind: str
    public: dict[str, Codec[Any]]
    bits: int = 0
    curve: str = ""
    kernel_bits: tuple[int, ...] = ()
    certified: str = ""

    @property
    def on_token(self) -> bool:
        """Whether a FIDO token holds such keys."""
        return "application" in self.public

    def blob(self, numbers: Mapping[str, Any]) -> bytes:
        """A public key as ssh writes it, of the values of `public`."""
        fields = [codec.write(numbers[name]) for name, codec in self.public.items()]
        return TEXT.write(self.name) + b"".join(fields)


_RSA: dict[str, Codec[Any]] = {"e": MPINT, "n": MPINT}
_ECDSA: dict[str, Codec[Any]] = {"curve": TEXT, "point": STRING}
_ED25519: dict[str, Codec[Any]] = {"point": STRING}
_COMPOSITE: dict[str, Codec[Any]] = {"keys": STRING}
_ON_TOKEN: dict[str, Codec[Any]] = {"application": TEXT}

KEY_TYPES = {
    one.name: one
    for one in (
        # The kernel's parser also takes other sizes of RSA, and then fails to sign.
        KeyType("ssh-rsa", "RSA", _RSA, kernel_bits=(1024, 1536, 2048, 3072, 4096)),
        KeyType("ssh-ed25519", "ED25519", _ED25519, 256),
        KeyType("ecdsa-sha2-nistp256", "ECDSA", _ECDSA, 256, "nistp256"),
        KeyType("ecdsa-sha2-nistp384", "ECDSA", _ECDSA, 384, "nistp384"),
        KeyType("ecdsa-sha2-nistp521", "ECDSA", _ECDSA, 521, "nistp521"),
        KeyType("sk-ssh-ed25519@openssh.com", "ED25519-SK", _ED25519 | _ON_TOKEN, 256),
        KeyType(
            "sk-ecdsa-sha2-nistp256@openssh.com", "ECDSA-SK", _ECDSA | _ON_TOKEN, 256, "nistp256"
        ),
        # Two keys in one, of which neither is used alone.  (OpenSSH 10.5 had it with @openssh.com
        # behind the name, as an experiment that 10.6 doesn't take any more.)
        KeyType(
            "ssh-mldsa44-ed25519",
            "MLDSA44-ED25519",
            _COMPOSITE,
            512,
            certified="ssh-mldsa44-ed25519-cert",
        ),
    )
}

# OpenSSH: SSH_RSA_MINIMUM_MODULUS_SIZE, SSHBUF_MAX_BIGNUM.
RSA_BITS = range(1024, 16384 + 1)


class SignFlags(IntFlag):
    """RFC 9987 section 3.6.1."""

    RSA_SHA2_256 = 2
    RSA_SHA2_512 = 4


class Algorithm(NamedTuple):
    """An algorithm for signatures.

    `hash` is hashlib's name for the one that comes first, "" where none does; `flag` asks for it
    where a key has several; if it `certifies`, OpenSSH takes it for a host's certificate
    (SSH_ALLOWED_CA_SIGALGS).
    """

    key_type: str
    hash: str = ""
    flag: int = 0
    certifies: bool = True


WEBAUTHN = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"
ALGORITHMS = {
    # With SHA-1, which an old server may know nothing better than.
    "ssh-rsa": Algorithm("ssh-rsa", "sha1", certifies=False),
    "rsa-sha2-256": Algorithm("ssh-rsa", "sha256", SignFlags.RSA_SHA2_256),
    "rsa-sha2-512": Algorithm("ssh-rsa", "sha512", SignFlags.RSA_SHA2_512),
    "ssh-ed25519": Algorithm("ssh-ed25519"),
    "ecdsa-sha2-nistp256": Algorithm("ecdsa-sha2-nistp256", "sha256"),
    "ecdsa-sha2-nistp384": Algorithm("ecdsa-sha2-nistp384", "sha384"),
    "ecdsa-sha2-nistp521": Algorithm("ecdsa-sha2-nistp521", "sha512"),
    "sk-ssh-ed25519@openssh.com": Algorithm("sk-ssh-ed25519@openssh.com"),
    "sk-ecdsa-sha2-nistp256@openssh.com": Algorithm("sk-ecdsa-sha2-nistp256@openssh.com", "sha256"),
    # A browser has the token make it.  It is verified here, and never made.
    WEBAUTHN: Algorithm("sk-ecdsa-sha2-nistp256@openssh.com", "sha256"),
    # Not in OpenSSH's list for certificates (10.6).
    "ssh-mldsa44-ed25519": Algorithm("ssh-mldsa44-ed25519", certifies=False),
}


def algorithm_of(key_type: str, flags: int) -> str:
    """What a key of that plain type signs with; both flags at once mean SHA-256, as in ssh-agent.

    Flags that aren't in SignFlags have no meaning here.
    """
    for name, algorithm in ALGORITHMS.items():
        if algorithm.key_type == key_type and flags & algorithm.flag:
            return name
    return key_type


def certificate_type(plain: str) -> str:
    """'ssh-rsa' -> 'ssh-rsa-cert-v01@openssh.com'."""
    if plain in KEY_TYPES and KEY_TYPES[plain].certified:
        return KEY_TYPES[plain].certified
    return plain.removesuffix("@openssh.com") + "-cert-v01@openssh.com"


# The other way.
PLAIN_TYPES = {certificate_type(plain): plain for plain in KEY_TYPES}

# A login may name one of these.
_KEY_TYPES_OF_LOGINS = {name: algorithm.key_type for name, algorithm in ALGORITHMS.items()}
_KEY_TYPES_OF_LOGINS |= {
    certificate_type(name): certificate_type(plain) for name, plain in _KEY_TYPES_OF_LOGINS.items()
}


def key_type_of(algorithm: str) -> str | None:
    """The type of the keys or certificates that log in with an algorithm; None if none is known."""
    return _KEY_TYPES_OF_LOGINS.get(algorithm)
