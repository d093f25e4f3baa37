"""Certificates as no program makes them: signed by their authority, and still wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kagent.protocol.privatekey import Ed25519CertifiedKey, NamedPrivateKey
from kagent.protocol.publickey import HOST, USER
from kagent.protocol.wire import MPINT, STRING, TEXT, UINT32, UINT64

AUTHORITY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")
POINT = KEY.public_key().public_bytes_raw()
ED25519 = "ssh-ed25519-cert-v01@openssh.com"


def plain(key: ed25519.Ed25519PrivateKey) -> bytes:
    """Its public half as ssh writes it."""
    return TEXT.write("ssh-ed25519") + STRING.write(key.public_key().public_bytes_raw())


@dataclass(frozen=True)
class Certificate:
    """The fields of PROTOCOL.certkeys, each as it lies there."""

    type: str = ED25519
    key: bytes = STRING.write(POINT)
    role: int = USER
    key_id: bytes = b"me"
    principals: bytes = TEXT.write("root")
    critical_options: bytes = b""
    extensions: bytes = TEXT.write("permit-pty") + STRING.write(b"")
    authority: bytes = plain(AUTHORITY)
    algorithm: str = "ssh-ed25519"
    behind: bytes = b""

    @property
    def blob(self) -> bytes:
        """The whole of it, signed."""
        body = (
            TEXT.write(self.type)
            + STRING.write(bytes(32))
            + self.key
            + UINT64.write(7)
            + UINT32.write(self.role)
            + STRING.write(self.key_id)
            + STRING.write(self.principals)
            + UINT64.write(0)
            + UINT64.write(2**64 - 1)
            + STRING.write(self.critical_options)
            + STRING.write(self.extensions)
            + STRING.write(b"")
            + STRING.write(self.authority)
        )
        signature = TEXT.write(self.algorithm) + STRING.write(AUTHORITY.sign(body))
        return body + STRING.write(signature) + self.behind

    @property
    def named(self) -> NamedPrivateKey:
        """As ssh-add sends it."""
        seed = KEY.private_bytes_raw()
        return NamedPrivateKey(ED25519, Ed25519CertifiedKey(self.blob, POINT, seed + POINT))


GOOD = Certificate()
OPTION = TEXT.write("force-command") + STRING.write(TEXT.write("date"))
# What ssh-agent takes, although it is unusual.
ODD = {
    "for a host": replace(GOOD, role=HOST),
    "for nobody": replace(GOOD, principals=b""),
    "with options": replace(GOOD, critical_options=OPTION),
    "with an unknown option": replace(GOOD, critical_options=OPTION.replace(b"force", b"farce")),
    "without extensions": replace(GOOD, extensions=b""),
    "of itself": replace(GOOD, authority=plain(AUTHORITY)),
    "for 256": replace(GOOD, principals=TEXT.write("root") * 256),
}
# What it doesn't.  All are for the same key and signed by the same authority.
WRONG = {
    "for neither users nor hosts": replace(GOOD, role=3),
    "for 257": replace(GOOD, principals=TEXT.write("root") * 257),
    "a principal that is cut off": replace(GOOD, principals=TEXT.write("root")[:-1]),
    "a principal with NUL": replace(GOOD, principals=TEXT.write("ro-ot").replace(b"-", b"\0")),
    "an id with NUL": replace(GOOD, key_id=b"m\0e"),
    "an option without a value": replace(GOOD, critical_options=TEXT.write("force-command")),
    "an option that is cut off": replace(GOOD, critical_options=OPTION[:-1]),
    "an extension without a value": replace(GOOD, extensions=TEXT.write("permit-pty")),
    "bytes behind": replace(GOOD, behind=b"\0"),
    "no authority": replace(GOOD, authority=b""),
    "an authority with bytes behind": replace(GOOD, authority=plain(AUTHORITY) + b"\0"),
    "another authority": replace(GOOD, authority=plain(KEY)),
    "an authority that is a certificate": replace(
        GOOD,
        authority=replace(GOOD, key=STRING.write(AUTHORITY.public_key().public_bytes_raw())).blob,
    ),
    "another algorithm": replace(GOOD, algorithm="rsa-sha2-512"),
    "an algorithm for certificates": replace(GOOD, algorithm=ED25519),
}


def _point(form: PublicFormat) -> bytes:
    public = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    return public.public_bytes(Encoding.X962, form)


def _ecdsa(point: bytes) -> Certificate:
    key = TEXT.write("nistp256") + STRING.write(point)
    return replace(GOOD, type="ecdsa-sha2-nistp256-cert-v01@openssh.com", key=key)


def _rsa(bits: int) -> Certificate:
    key = MPINT.write(65537) + MPINT.write(2**bits - 1)
    return replace(GOOD, type="ssh-rsa-cert-v01@openssh.com", key=key)


# Of keys that nobody can use; the first of each pair can be.
UNUSABLE = {
    "a short point": (GOOD, replace(GOOD, key=STRING.write(POINT[:-1]))),
    "a compressed point": (
        _ecdsa(_point(PublicFormat.UncompressedPoint)),
        _ecdsa(_point(PublicFormat.CompressedPoint)),
    ),
    "a point off the curve": (
        _ecdsa(_point(PublicFormat.UncompressedPoint)),
        _ecdsa(_point(PublicFormat.UncompressedPoint)[:-1] + b"\0"),
    ),
    "a short RSA key": (_rsa(1024), _rsa(1023)),
    "a long RSA key": (_rsa(16384), _rsa(16392)),
}
