"""Signatures of ssh keys, verified.  Slow to import: for short-lived processes."""

from __future__ import annotations

import base64
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ..protocol.algorithms import ALGORITHMS, RSA_BITS, WEBAUTHN
from ..protocol.messages import SessionBind
from ..protocol.publickey import Certificate, PublicKey
from ..protocol.wire import BYTE, MPINT, STRING, TEXT, UINT32, ProtocolError, Reader
from . import composite
from .library import CURVES, HASHES

# WebAuthn section 6.1: flags of a token's answer.
_ATTESTED, _EXTENDED = 0x40, 0x80

_UNCOMPRESSED = b"\4"  # the only form of a point that OpenSSH takes, RFC 5656 section 3.1


class BadSignature(ValueError):
    """The signature isn't one of that key for that data."""


class CannotVerify(BadSignature):
    """Nobody here can tell; the text says why, and which library could."""


def verify(key: PublicKey, signature: bytes, data: bytes) -> str:
    """Check a signature in ssh's form (RFC 4253 section 6.6, for tokens PROTOCOL.u2f); the
    algorithm it is made with.

    Raises BadSignature.
    """
    try:
        reader = Reader(signature)
        algorithm, made = TEXT.read(reader), STRING.read(reader)
        if not _fits(key, algorithm):
            raise BadSignature(f"{algorithm[:64]!r} is no signature of a {key.plain_type} key")
        if "application" in key.numbers:
            data = _signed_by_token(key, algorithm, reader, data)
        reader.expect_end()
        _verify(key, algorithm, made, data)
    except (ProtocolError, InvalidSignature) as error:
        raise BadSignature("incorrect signature") from error
    return algorithm


def check_usable(key: PublicKey) -> None:
    """Check that its signatures can be verified here.  Raises BadSignature, CannotVerify."""
    _library_key(key)


def check_certificate(key: PublicKey) -> bool:
    """Check what OpenSSH checks of every certificate that it reads (sshkey.c, cert_parse), and
    PublicKey.parse doesn't: key and authority are usable, and the authority has signed.

    Whether the authority is one to be trusted is another question.  A plain key is none of these.
    Gives False if nobody here can tell whether the authority has signed: its key is of an unknown
    type, or of one that the library hasn't.  Raises BadSignature.
    """
    certificate = key.certificate
    if certificate is None:
        return True
    check_usable(key)
    try:
        _check_authority(key, certificate)
    except CannotVerify:
        return False
    return True


def check_bind(bind: SessionBind) -> None:
    """Check that the host of an ssh session has proved itself with its key.

    With a certificate it is the certified key that signs.  Raises BadSignature.
    """
    try:
        host = PublicKey.parse(bind.host_key)
    except ProtocolError as error:
        raise BadSignature(f"not a usable host key: {error}") from error
    if host.certificate is not None:
        _check_authority(host, host.certificate)
    verify(host, bind.signature, bind.session_id)


def _check_authority(key: PublicKey, certificate: Certificate) -> None:
    """Raises BadSignature, CannotVerify."""
    try:
        authority = certificate.authority_key
    except ProtocolError as error:
        raise BadSignature(f"not a usable authority: {error}") from error
    if not authority.known:
        raise CannotVerify("the key of its certificate's authority is of an unknown type")
    if authority.certificate is not None:
        raise BadSignature("a certificate is signed by a certificate")
    certified = key.blob[: -len(STRING.write(certificate.signature))]
    verify(authority, certificate.signature, certified)


def _fits(key: PublicKey, algorithm: str) -> bool:
    return algorithm in ALGORITHMS and ALGORITHMS[algorithm].key_type == key.plain_type


def _signed_by_token(key: PublicKey, algorithm: str, reader: Reader, data: bytes) -> bytes:
    """What a token signs for `data`, by the flags and the counter that it has put in, and by what
    a browser has, if one asked it.

    Raises InvalidSignature, ProtocolError.
    """
    application = TEXT.write(str(key.numbers["application"]))[4:]
    flags, counter = BYTE.read(reader), UINT32.read(reader)
    extensions = b""
    if algorithm == WEBAUTHN:
        origin = TEXT.write(TEXT.read(reader))[4:]
        challenge, data, extensions = data, STRING.read(reader), STRING.read(reader)
        if (
            b'"' in origin
            or not data.startswith(_asked_by_browser(challenge, origin))
            or flags & _ATTESTED
            or bool(flags & _EXTENDED) != bool(extensions)
        ):
            raise InvalidSignature
    return (
        hashlib.sha256(application).digest()
        + BYTE.write(flags)
        + UINT32.write(counter)
        + extensions
        + hashlib.sha256(data).digest()
    )


def _asked_by_browser(challenge: bytes, origin: bytes) -> bytes:
    """What the request begins with that a browser shows to a token (WebAuthn section 5.8.1)."""
    text = base64.urlsafe_b64encode(challenge).rstrip(b"=")
    return b'{"type":"webauthn.get","challenge":"%s","origin":"%s"' % (text, origin)


def _verify(key: PublicKey, algorithm: str, made: bytes, data: bytes) -> None:
    public = _library_key(key)
    if isinstance(public, rsa.RSAPublicKey):
        # Some leave out zeros in front.
        made = made.rjust((key.bits + 7) // 8, b"\0")
        public.verify(made, data, padding.PKCS1v15(), HASHES[ALGORITHMS[algorithm].hash])
    elif isinstance(public, ed25519.Ed25519PublicKey | composite.PublicKey):
        public.verify(made, data)
    else:
        reader = Reader(made)
        r, s = MPINT.read(reader), MPINT.read(reader)
        reader.expect_end()
        hashed = HASHES[ALGORITHMS[algorithm].hash]
        public.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashed))


def _library_key(
    key: PublicKey,
) -> rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | composite.PublicKey:
    """The key as OpenSSL has it.

    Raises BadSignature for one that OpenSSH doesn't take, CannotVerify.
    """
    numbers = key.numbers
    try:
        if key.plain_type == "ssh-rsa":
            if key.bits not in RSA_BITS:
                raise BadSignature(f"an RSA key of {key.bits} bits is of no use")
            return rsa.RSAPublicNumbers(int(numbers["e"]), int(numbers["n"])).public_key()
        if "keys" in numbers:
            keys = numbers["keys"]
            assert isinstance(keys, bytes)
            return composite.PublicKey.from_public_bytes(keys)
        point = numbers["point"]
        assert isinstance(point, bytes)
        if "curve" not in numbers:
            return ed25519.Ed25519PublicKey.from_public_bytes(point)
        if point[:1] != _UNCOMPRESSED:
            raise BadSignature("not a usable public key: its point is compressed")
        curve = CURVES[str(numbers["curve"])]
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except BadSignature:
        raise
    except composite.Unsupported as error:
        raise CannotVerify(str(error)) from error
    except ValueError as error:
        raise BadSignature(f"not a usable public key: {error}") from error
