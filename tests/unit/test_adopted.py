"""What others have put beside an agent's keys keeps nobody from them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from kagent.custody import adopted
from kagent.custody.adopted import Adopted
from kagent.keyctl import AsymmetricKey, Description, Key, Keyring, NotRecovered, RsaPublicKey
from kagent.keyctl.syscalls import PkeyLimits

PUBLIC = RsaPublicKey(65537, 1 << 2047 | 1)


class Kernel:
    """A keyring with so many slow keys of no use before a good one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
        self.now = 0.0
        self.slow = range(1, slow + 1)
        self.good = slow + 1
        monkeypatch.setattr(adopted, "time", SimpleNamespace(thread_time=lambda: self.now))
        monkeypatch.setattr(adopted, "recover", self.recover)
        monkeypatch.setattr(AsymmetricKey, "limits", lambda *_: PkeyLimits(15, 2048, *(256,) * 4))
        monkeypatch.setattr(AsymmetricKey, "encrypt_raw", lambda key, *_: self.encrypt(key))
        monkeypatch.setattr(Keyring, "described", lambda _: map(self.described, self.serials))

    @property
    def serials(self) -> list[int]:
        return [*self.slow, self.good]

    def described(self, serial: int) -> tuple[Key, Description]:
        return Key(serial), Description("asymmetric", os.getuid(), 0, 0, f"key {serial}")

    def encrypt(self, key: AsymmetricKey) -> bytes:
        self.now += 0.3 if key.serial in self.slow else 0.001
        return b"made"

    def recover(self, key: AsymmetricKey) -> RsaPublicKey:
        if key.serial in self.slow:
            raise NotRecovered
        return PUBLIC


def test_slow_keys_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at once, and a list waits for few of them; a key that is known stays."""
    kernel = Kernel(monkeypatch, 5)
    found = Adopted(lambda: [Keyring(1000)], lambda: None)
    took, listed = [], []
    for _ in range(4):
        before = kernel.now
        listed.append([one.key.serial for one in found.all()])
        took.append(round(kernel.now - before, 1))
    assert listed == [[], [], [kernel.good], [kernel.good]]
    assert took == [0.6, 0.6, 0.3, 0]
    before, kernel.slow = kernel.now, range(101, 200)  # others come
    assert [one.key.serial for one in found.all()] == [kernel.good]
    assert kernel.now - before < 1


def test_what_is_to_be_removed_is_looked_for_however_long_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it could be used around the constraints that it has from now on."""
    kernel = Kernel(monkeypatch, 5)
    removed: list[int] = []
    monkeypatch.setattr(Keyring, "destroy", lambda _, key: removed.append(key.serial))
    assert Adopted(lambda: [Keyring(1000)], lambda: None).remove() == []
    assert removed == [kernel.good]


def test_what_comes_meanwhile_is_for_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who puts the next slow key there while the kernel computes could have a look never end."""
    kernel = Kernel(monkeypatch, 100)
    content = {1000: [Key(1), Keyring(1001)], 1001: [Key(kernel.good)]}

    def described(keyring: Keyring) -> list[tuple[Key, Description]]:
        about = Description("keyring", os.getuid(), 0, 0, "more")
        return [
            (one, about) if isinstance(one, Keyring) else kernel.described(one.serial)
            for one in content[keyring.serial]
        ]

    def recover(key: AsymmetricKey) -> RsaPublicKey:
        if key.serial in kernel.slow:
            next_keyring = Keyring(1001 + key.serial)
            content[next_keyring.serial] = []
            content[next_keyring.serial - 1] += [Key(key.serial + 1), next_keyring]
        return kernel.recover(key)

    monkeypatch.setattr(Keyring, "described", described)
    monkeypatch.setattr(adopted, "recover", recover)
    found = Adopted(lambda: [Keyring(1000)], lambda: None).all(thorough=True)
    assert [one.key.serial for one in found] == [kernel.good]
    assert len(content) == 3  # one slow key was looked at
