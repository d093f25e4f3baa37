"""Sessions that are bound by hosts with keys and signatures of all kinds, good and bad."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kagent.protocol.wire import BYTE, MPINT, STRING, TEXT, UINT32, Reader

from .agents import DONE, REFUSED, Outcome
from .keys import AUTHORITY, CERTIFIED, POST_QUANTUM, STRANGER, A, B, D, Key
from .requests import bind, session_of

RSA = Key.of("rsa", rsa.generate_private_key(65537, 2048))
_SHORT_RSA = Key.of("rsa", rsa.generate_private_key(65537, 1024))
_P384, _P521 = (
    Key.of("p", ec.generate_private_key(curve())) for curve in (ec.SECP384R1, ec.SECP521R1)
)
_BY_A = A.sign(session_of(A))
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def changed(signature: bytes) -> bytes:
    return signature[:-1] + bytes((signature[-1] ^ 1,))


def compressed(key: Key) -> Key:
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    public = key.private.public_key()
    points = [
        public.public_bytes(Encoding.X962, form)
        for form in (PublicFormat.UncompressedPoint, PublicFormat.CompressedPoint)
    ]
    blob = key.blob.replace(*map(STRING.write, points))
    return replace(key, blob=blob)


def _first_half(blob: bytes) -> bytes:
    fields = Reader(blob)
    return TEXT.write(TEXT.read(fields)) + STRING.write(STRING.read(fields)[:1312])


def _parts(signature: bytes) -> tuple[bytes, bytes]:
    reader = Reader(signature)
    return STRING.read(reader), STRING.read(reader)


def _without_zero_in_front(key: Key) -> bytes:
    """A bind with an RSA signature that is a byte shorter than the key."""
    for number in range(100_000):
        algorithm, made = _parts(key.sign(session_of(key, number)))
        if made[0] == 0:
            signature = STRING.write(algorithm) + STRING.write(made[1:])
            return bind(key, number, signature=signature)
    raise AssertionError("no such signature")


def _by_512_bits() -> bytes:
    """A bind by an RSA key of 512 bits, well signed."""
    p = 0xF7477F1FFA75E2CBECFF0D573BA35127D27F1D4F1E46C1C1293671D12924A5D3
    q = 0xC1953979BA3C15C43D426FD6878A8BF69FE7F36FC7B714223E3E684C64CC360B
    e, n = 65537, p * q
    blob = TEXT.write("ssh-rsa") + MPINT.write(e) + MPINT.write(n)
    digest = _SHA256_INFO + hashlib.sha256(session_of(A)).digest()
    padded = b"\0\1" + b"\xff" * (61 - len(digest)) + b"\0" + digest
    made = pow(int.from_bytes(padded, "big"), pow(e, -1, (p - 1) * (q - 1)), n).to_bytes(64, "big")
    signature = TEXT.write("rsa-sha2-256") + STRING.write(made)
    return bind(replace(A, blob=blob), signature=signature)


def _by_token(key: Key, kind: str, flags: int = 1) -> bytes:
    """A bind by a host whose key is on a FIDO token."""
    fields = Reader(key.blob)
    TEXT.read(fields)
    blob = TEXT.write(kind) + fields.rest() + TEXT.write("ssh:")
    session = session_of(key)
    data = hashlib.sha256(b"ssh:").digest() + BYTE.write(1) + UINT32.write(9)
    _, made = _parts(key.sign(data + hashlib.sha256(session).digest()))
    signature = TEXT.write(kind) + STRING.write(made) + BYTE.write(flags) + UINT32.write(9)
    return bind(replace(key, blob=blob), signature=signature)


_SK_ED25519, _SK_ECDSA = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"


def _by_rsa(algorithm: str) -> bytes:
    return bind(RSA, signature=RSA.sign(session_of(RSA), algorithm))


PROOFS: dict[str, tuple[bytes, Outcome]] = {
    "Ed25519": (bind(A), DONE),
    "ECDSA, nistp256": (bind(B), DONE),
    "ECDSA, nistp384": (bind(_P384), DONE),
    "ECDSA, nistp521": (bind(_P521), DONE),
    "RSA, SHA-1": (_by_rsa("ssh-rsa"), DONE),
    "RSA, SHA-256": (_by_rsa("rsa-sha2-256"), DONE),
    "RSA, SHA-512": (_by_rsa("rsa-sha2-512"), DONE),
    "RSA, an unknown hash": (_by_rsa("rsa-sha2-384"), REFUSED),
    "RSA, an algorithm for certificates": (_by_rsa("rsa-sha2-256-cert-v01@openssh.com"), REFUSED),
    "RSA, 1024 bits": (bind(_SHORT_RSA), DONE),
    "RSA, 512 bits": (_by_512_bits(), REFUSED),
    "RSA, without a zero in front": (_without_zero_in_front(_SHORT_RSA), DONE),
    "Ed25519 on a token": (_by_token(A, _SK_ED25519), DONE),
    "Ed25519 on a token, other flags": (_by_token(A, _SK_ED25519, flags=5), REFUSED),
    "ECDSA on a token": (_by_token(B, _SK_ECDSA), DONE),
    "ECDSA on a token, other flags": (_by_token(B, _SK_ECDSA, flags=5), REFUSED),
    "a compressed point": (bind(compressed(B)), REFUSED),
    "a certificate": (bind(CERTIFIED), DONE),
    "a certificate by ECDSA": (bind(D.certified(B, "d")), DONE),
    "a certificate by RSA": (bind(D.certified(RSA, "d")), DONE),
    "a certificate for RSA": (bind(RSA.certified(AUTHORITY, "d")), DONE),
    "a certificate for ECDSA": (bind(_P384.certified(AUTHORITY, "d")), DONE),
    "a user's certificate": (bind(D.certified(AUTHORITY, "d", role=1)), DONE),
    "a certificate of no role": (bind(D.certified(AUTHORITY, "d", role=3)), REFUSED),
    "a certificate for many": (bind(D.certified(AUTHORITY, *["d"] * 256)), DONE),
    "a certificate for too many": (bind(D.certified(AUTHORITY, *["d"] * 257)), REFUSED),
    "a certificate by a certificate": (bind(D.certified(CERTIFIED, "d")), REFUSED),
    "a certificate by another": (bind(D.certified(replace(AUTHORITY, blob=A.blob), "d")), REFUSED),
    "a changed certificate": (bind(replace(D, blob=changed(CERTIFIED.blob))), REFUSED),
    "a certificate's authority": (
        bind(CERTIFIED, signature=AUTHORITY.sign(session_of(D))),
        REFUSED,
    ),
    "another's signature": (bind(A, signature=STRANGER.sign(session_of(A))), REFUSED),
    "another session's signature": (bind(A, signature=A.sign(session_of(A, 1))), REFUSED),
    "a changed signature": (bind(A, signature=changed(_BY_A)), REFUSED),
    "a signature that goes on": (bind(A, signature=_BY_A + b"\0"), REFUSED),
    "half a signature": (bind(A, signature=_BY_A[:40]), REFUSED),
    "no signature": (bind(A, signature=b""), REFUSED),
    "another kind of signature": (bind(A, signature=B.sign(session_of(A))), REFUSED),
    "no key": (bind(replace(A, blob=b"")), REFUSED),
    "half a key": (bind(replace(A, blob=A.blob[:-1])), REFUSED),
    "a key that goes on": (bind(replace(A, blob=A.blob + b"\0")), REFUSED),
}

_BOTH_HALVES = POST_QUANTUM.sign(session_of(POST_QUANTUM))
_OTHERS = POST_QUANTUM.sign(session_of(POST_QUANTUM, 1))
_ED25519 = 64  # bytes of the second half
PROOFS |= {
    "ML-DSA and Ed25519": (bind(POST_QUANTUM), DONE),
    "a certificate by them": (bind(D.certified(POST_QUANTUM, "d")), DONE),
    "a certificate for them": (bind(POST_QUANTUM.certified(AUTHORITY, "pq")), DONE),
    **{
        name: (bind(POST_QUANTUM, signature=signature), REFUSED)
        for name, signature in {
            "another ML-DSA": _OTHERS[:-_ED25519] + _BOTH_HALVES[-_ED25519:],
            "another Ed25519": _BOTH_HALVES[:-_ED25519] + _OTHERS[-_ED25519:],
            "another session's ML-DSA and Ed25519": _OTHERS,
            "half of ML-DSA and Ed25519": _BOTH_HALVES[:-_ED25519],
            "ML-DSA and Ed25519 and more": _BOTH_HALVES + b"\0",
        }.items()
    },
    "ML-DSA's half of a key": (
        bind(replace(POST_QUANTUM, blob=_first_half(POST_QUANTUM.blob))),
        REFUSED,
    ),
    "a changed certificate by ML-DSA and Ed25519": (
        bind(replace(D, blob=changed(D.certified(POST_QUANTUM, "d").blob))),
        REFUSED,
    ),
}
