"""RSA public keys recovered from what a key encrypts, with OpenSSL in the kernel's place."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from kagent.keyctl import AsymmetricKey, NotRecovered, PkeyLimits, RsaPublicKey, recover
from kagent.keyctl import rsa as keyctl_rsa

HASHES = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class Standin(AsymmetricKey):
    """Encrypts with one key and signs with another, which should be the same."""

    def __init__(self, encrypts: rsa.RSAPublicKey, signs: rsa.RSAPrivateKey, ops: int = 15) -> None:
        super().__init__(0)
        numbers = encrypts.public_numbers()
        self.__dict__.update(ops=ops, public=RsaPublicKey(numbers.e, numbers.n), signs=signs)

    def limits(self, info: str = "enc=pkcs1") -> PkeyLimits:
        size = (self.public.n.bit_length() + 7) // 8
        return PkeyLimits(self.ops, 8 * size, size, size, size, size)

    def encrypt_raw(self, data: bytes, size: int = 0) -> bytes:
        return self.public.encrypt_raw(data)

    def sign(self, digest: bytes, hash_name: str, size: int = 0) -> bytes:
        return self.signs.sign(digest, padding.PKCS1v15(), Prehashed(HASHES[hash_name]))


def pair(exponent: int, bits: int = 1024) -> rsa.RSAPrivateKey:
    """OpenSSL makes no keys with other exponents than 3 and 65537 here: so by hand."""
    while True:
        numbers = rsa.generate_private_key(65537, bits).private_numbers()
        p, q = numbers.p, numbers.q
        try:
            d = pow(exponent, -1, (p - 1) * (q - 1))
        except ValueError:
            continue
        return rsa.RSAPrivateNumbers(
            p,
            q,
            d,
            rsa.rsa_crt_dmp1(d, p),
            rsa.rsa_crt_dmq1(d, q),
            rsa.rsa_crt_iqmp(p, q),
            rsa.RSAPublicNumbers(exponent, p * q),
        ).private_key()


@pytest.mark.parametrize("exponent", [3, 17, 35, 37, 257, 65537])
def test_recovered(exponent: int) -> None:
    key = pair(exponent)
    public = recover(Standin(key.public_key(), key))
    assert (public.e, public.n) == (exponent, key.public_key().public_numbers().n)


def test_not_believed_without_a_signature() -> None:
    """A key whose private half is another's, one that can't sign, and an unusual exponent."""
    key, other = pair(65537), pair(65537)
    with pytest.raises(NotRecovered):
        recover(Standin(key.public_key(), other))
    with pytest.raises(NotRecovered):
        recover(Standin(key.public_key(), key, ops=9))
    unusual = pair(7)
    with pytest.raises(NotRecovered):
        recover(Standin(unusual.public_key(), unusual))


@pytest.mark.parametrize("hash_name", HASHES)
def test_signatures_are_compared_whole(hash_name: str) -> None:
    key = pair(65537)
    standin = Standin(key.public_key(), key)
    digest = bytes(range(HASHES[hash_name].digest_size))
    signature = standin.sign(digest, hash_name)
    public = recover(standin)
    assert public.verify(signature, digest, hash_name)
    assert not public.verify(signature, digest[::-1], hash_name)
    assert not public.verify(signature[::-1], digest, hash_name)
    assert not public.verify(b"\0" + signature, digest, hash_name)
    larger = int.from_bytes(signature, "big") + public.n
    assert not public.verify(larger.to_bytes(129, "big"), digest, hash_name)
    others = {"sha1": "sha256", "sha256": "sha512", "sha384": "sha256", "sha512": "sha384"}
    assert not public.verify(signature, digest, others[hash_name])


def test_trailing_garbage_is_no_signature() -> None:
    """The forgery that works with e = 3 where the padding is parsed and not compared."""
    key = pair(3, 2048)
    digest = bytes(32)
    standin = Standin(key.public_key(), key)
    good = pow(int.from_bytes(standin.sign(digest, "sha256"), "big"), 3, recover(standin).n)
    encoded = good.to_bytes(256, "big")
    short = b"\0\1\xff\xff\xff\xff\xff\xff\xff\xff" + encoded[encoded.index(b"\0", 2) :]
    target = int.from_bytes(short.ljust(256, b"\xff"), "big")
    root = 1 << (target.bit_length() // 3 + 1)
    while root**3 > target:
        root = (2 * root + target // root**2) // 3
    assert (root**3).to_bytes(256, "big")[: len(short)] == short
    assert not recover(standin).verify(root.to_bytes(256, "big"), digest, "sha256")


def test_one_that_takes_the_kernel_long_is_soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a usual exponent none does."""
    used = 0

    class Slow(Standin):
        def encrypt_raw(self, data: bytes, size: int = 0) -> bytes:
            nonlocal used
            used += 1
            return super().encrypt_raw(data)

    monkeypatch.setattr(keyctl_rsa.time, "thread_time", lambda: float(used))
    unusual = pair(2**64 + 13)
    with pytest.raises(NotRecovered):
        recover(Slow(unusual.public_key(), unusual))
    assert used == 3
