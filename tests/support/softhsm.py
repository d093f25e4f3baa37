"""PKCS#11 tokens in software: SoftHSM's, and a stand-in for OpenSSH's helper that can misbehave."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from .programs import Person

PIN = "a PIN that nobody guesses"
# Debian's, and Fedora's.
_PLACES = ("lib/*/softhsm/libsofthsm2.so", "lib64/pkcs11/libsofthsm2.so")
LIBRARY = next(path for place in _PLACES for path in Path("/usr").glob(place))
REAL_HELPER = "/usr/lib/openssh/ssh-pkcs11-helper"
CHECKOUT = Path(__file__).parents[2]

_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
TYPES: dict[str, Callable[[], _Key]] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa384": lambda: ec.generate_private_key(ec.SECP384R1()),
    # Helpers since OpenSSH 10.1 know it; older ones pass it over.
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True)
class SoftToken:
    """A token of a person's; `env` is what who uses it needs."""

    person: Person
    env: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where it is; without that it is pulled out."""
        return self.person.home / "tokens"

    def import_key(self, name: str, file: Path) -> None:
        """Put a key there, labelled with that name."""
        number = f"{len(list(self.folder.glob('*/*.object'))):04x}"
        words = ["--token", "soft", "--pin", PIN, "--label", name, "--id", number]
        self.person.run("softhsm2-util", "--import", file, *words, **self.env)


def soft_token(person: Person, *types: str) -> SoftToken:
    """A token with a key of each of TYPES, whose public halves are in files of those names."""
    folder = person.home / "tokens"
    person.run("mkdir", folder)
    settings = f"directories.tokendir = {folder}\nobjectstore.backend = file\nlog.level = ERROR\n"
    env = {"SOFTHSM2_CONF": str(person.file("softhsm2.conf", settings))}
    words = ["--init-token", "--free", "--label", "soft", "--pin", PIN, "--so-pin", "12345678"]
    person.run("softhsm2-util", *words, **env)
    token = SoftToken(person, env)
    for name in types:
        key = TYPES[name]()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = person.file(name, pem)
        token.import_key(f"{name} key", path)
        path.unlink()
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        person.file(f"{name}.pub", line + b"\n")
    return token


def with_pin(person: Person, pin: str = PIN) -> dict[str, str]:
    """The variables of a program that asks for a PIN, and is told this one."""
    person.file("pin", f"{pin}\n")
    askpass = person.file("pin-askpass", "#!/bin/sh\nexec cat pin\n", 0o700)
    return {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}


def stand_in(person: Person, behaviour: str = "") -> Path:
    """A program to take ssh-pkcs11-helper's place: it speaks as that of OpenSSH 10.1 and later.

    Its keys are Ed25519, ECDSA and RSA; `behaviour` is how it fails, as in its own file.  Its pid
    is in the file `helper.pid`.
    """
    words = f"PYTHONPATH={CHECKOUT} exec {sys.executable} -m tests.support.helper {behaviour}"
    return person.file("helper", f"#!/bin/sh\n{words}\n", 0o700)


def copy_of_library(person: Person) -> Path:
    """SoftHSM's library at another path, which counts as another provider."""
    return Path(shutil.copy(LIBRARY, person.home / "copy.so"))
