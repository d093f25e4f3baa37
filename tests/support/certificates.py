"""Certificates as no program makes them: signed by their authority, and still wrong."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kagent.protocol.algorithms import WEBAUTHN
from kagent.protocol.privatekey import Ed25519CertifiedKey, NamedPrivateKey
from kagent.protocol.publickey import HOST, USER
from kagent.protocol.wire import BYTE, MPINT, STRING, TEXT, UINT32, UINT64

AUTHORITY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")
POINT = KEY.public_key().public_bytes_raw()
ED25519 = "ssh-ed25519-cert-v01@openssh.com"


def plain(key: ed25519.Ed25519PrivateKey) -> bytes:
    """Its public half as ssh writes it."""
    return TEXT.write("ssh-ed25519") + STRING.write(key.public_key().public_bytes_raw())


@dataclass(frozen=True)
class Browser:
    """One that has a token sign for an authority."""

    kind: bytes = b"webauthn.get"
    origin: bytes = b"https://example.org"
    other_origin: bytes = b""  # in the request
    challenge: bytes = b""  # another one
    flags: int = 5
    extensions: bytes = b""

    AUTHORITY: ClassVar = ec.derive_private_key(7, ec.SECP256R1())

    @classmethod
    def public(cls) -> bytes:
        """The authority's key as ssh writes it."""
        public = cls.AUTHORITY.public_key()
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        fields = (TEXT.write("nistp256"), STRING.write(point), TEXT.write("ssh:"))
        return TEXT.write("sk-ecdsa-sha2-nistp256@openssh.com") + b"".join(fields)

    def sign(self, data: bytes) -> bytes:
        """PROTOCOL.u2f, webauthn signatures."""
        challenge = base64.urlsafe_b64encode(self.challenge or data).rstrip(b"=")
        request = b'{"type":"%s","challenge":"%s","origin":"%s","crossOrigin":false}' % (
            *(self.kind, challenge, self.other_origin or self.origin),
        )
        counted = BYTE.write(self.flags) + UINT32.write(9)
        hashed = [hashlib.sha256(one).digest() for one in (b"ssh:", request)]
        signed = hashed[0] + counted + self.extensions + hashed[1]
        numbers = decode_dss_signature(self.AUTHORITY.sign(signed, ec.ECDSA(SHA256())))
        made = b"".join(map(MPINT.write, numbers))
        told = map(STRING.write, (self.origin, request, self.extensions))
        return TEXT.write(WEBAUTHN) + STRING.write(made) + counted + b"".join(told)


@dataclass(frozen=True)
class Certificate:
    """The fields of PROTOCOL.certkeys, each as it lies there."""

    type: str = ED25519
    key: bytes = STRING.write(POINT)
    role: int = USER
    key_id: bytes = b"me"
    principals: bytes = TEXT.write("root")
    valid_after: int = 0
    valid_before: int = 2**64 - 1
    critical_options: bytes = b""
    extensions: bytes = TEXT.write("permit-pty") + STRING.write(b"")
    authority: bytes = plain(AUTHORITY)
    algorithm: str = "ssh-ed25519"
    behind: bytes = b""
    browser: Browser | None = None

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
            + UINT64.write(self.valid_after)
            + UINT64.write(self.valid_before)
            + STRING.write(self.critical_options)
            + STRING.write(self.extensions)
            + STRING.write(b"")
            + STRING.write(self.authority)
        )
        signature = TEXT.write(self.algorithm) + STRING.write(AUTHORITY.sign(body))
        if self.browser:
            signature = self.browser.sign(body)
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
_BY_BROWSER = replace(GOOD, authority=Browser.public(), browser=Browser())
ODD |= {
    "by a browser": _BY_BROWSER,
    "by a browser with extensions": replace(
        _BY_BROWSER, browser=Browser(flags=0x85, extensions=b"\xa1")
    ),
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
} | {
    f"a browser's {what}": replace(_BY_BROWSER, browser=browser)
    for what, browser in {
        "other challenge": Browser(challenge=b"other"),
        "other origin": Browser(other_origin=b"https://example.com"),
        "quoted origin": Browser(origin=b'https://"'),
        "registration": Browser(kind=b"webauthn.create"),
        "attestation": Browser(flags=0x45),
        "missing extensions": Browser(flags=0x85),
        "unannounced extensions": Browser(extensions=b"\xa1"),
    }.items()
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
    "a long RSA key": (_rsa(16384), _rsa(16385)),
}
