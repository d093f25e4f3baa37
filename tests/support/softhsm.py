"""PKCS#11 tokens in software: SoftHSM's, and a stand-in for OpenSSH's helper that can misbehave."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .programs import Person

PIN = "a PIN that nobody guesses"
[LIBRARY] = Path("/usr/lib").glob("*/softhsm/libsofthsm2.so")
REAL_HELPER = "/usr/lib/openssh/ssh-pkcs11-helper"
CHECKOUT = Path(__file__).parents[2]

# ssh-keygen's options, of the types that helpers of all versions know.
TYPES = {
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ecdsa": ("-t", "ecdsa", "-b", "256"),
    "ecdsa384": ("-t", "ecdsa", "-b", "384"),
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
        path = person.key(name, *TYPES[name], "-m", "PKCS8")
        token.import_key(f"{name} key", path)
        path.unlink()
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
