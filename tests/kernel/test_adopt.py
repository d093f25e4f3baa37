"""Keys that kagent did not load, with keyctl as witness of what the session has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from kagent.protocol.publickey import parse_line
from tests.kernel import keys
from tests.support.programs import Agent, Person, agent, sshd, wait_until

PAGE = Path(__file__).parent.parent.parent / "contrib/DEVELOPING.md"
EXPONENTS = (37, 65537)


def padd(person: Person, path: Path, name: str, keyring: str = "@s") -> str:
    """Load a key with keyctl; its serial."""
    der = person.file(f"{path.name}.p8", keys.pkcs8(path))
    return person.run(
        "sh", "-c", f"keyctl padd asymmetric '{name}' {keyring} < {der}"
    ).stdout.strip()


def listed(kagent: Agent) -> list[str]:
    told = kagent.run("ssh-add", "-l", check=False).stdout
    return [] if "no identities" in told else told.splitlines()


def line(path: Path, comment: str) -> str:
    """What ssh-add -l says of a key that has that comment."""
    key, _ = parse_line(path.with_suffix(".pub").read_text())
    return f"{key.bits} {key.fingerprint()} {comment} (RSA)"


@pytest.mark.distribution
def test_listed_and_signs(kagent: Agent, folder: Path) -> None:
    """Each size, with its description as comment, after those that kagent has loaded."""
    person = kagent.person
    loaded = keys.rsa(2048, 1)
    kagent.run("ssh-add", person.file("loaded", loaded))
    for bits in (1024, 2048, 3072):
        padd(person, keys.rsa(bits), f"key of {bits}")
    assert listed(kagent) == [
        line(loaded, "key-2048-1"),
        *(line(keys.rsa(bits), f"key of {bits}") for bits in (1024, 2048, 3072)),
    ]
    public = keys.rsa(3072).with_suffix(".pub")
    kagent.run("ssh-add", "-T", person.file("key.pub", public))
    with sshd(person, folder / "sshd", public.read_text()) as server:
        assert kagent.run(*server.ssh(person), "echo", "hello").stdout == "hello\n"


def test_comes_and_goes_at_once(kagent: Agent) -> None:
    """Whatever plain keyctl does, wherever below the session keyring or the user's."""
    person = kagent.person
    path = keys.rsa(2048)
    expected = [line(path, "deploy")]
    for end in ("revoke", "invalidate", "unlink", "timeout"):
        serial = padd(person, path, "deploy")
        assert listed(kagent) == expected
        person.run("keyctl", end, serial, *{"unlink": ["@s"], "timeout": ["1"]}.get(end, []))
        if end == "timeout":
            wait_until(lambda: listed(kagent) == [])
        assert listed(kagent) == []
    below = person.run("keyctl", "newring", "below", "@s").stdout.strip()
    padd(person, path, "deploy", below)
    assert listed(kagent) == expected
    person.run("keyctl", "clear", below)
    serial = padd(person, path, "deploy", "@u")
    assert listed(kagent) == expected
    person.run("keyctl", "unlink", serial, "@u")
    assert listed(kagent) == []


def test_another_key_under_the_same_name(kagent: Agent) -> None:
    person = kagent.person
    for number in (0, 1):
        padd(person, keys.rsa(2048, number), "deploy")
        assert listed(kagent) == [line(keys.rsa(2048, number), "deploy")]
        kagent.run(
            "ssh-add", "-T", person.file("k.pub", keys.rsa(2048, number).with_suffix(".pub"))
        )


def test_what_cannot_sign_is_passed_over(kagent: Agent) -> None:
    person = kagent.person
    key = person.file("key.der", keys.pkcs8(keys.rsa(2048)))
    certificate = person.home / "cert.der"
    told = ["openssl", "req", "-x509", "-subj", "/CN=x", "-outform", "DER", "-out", certificate]
    person.run(*told, "-keyform", "DER", "-key", key)
    person.run("sh", "-c", f"keyctl padd asymmetric certificate @s < {certificate}")
    person.run("keyctl", "add", "user", "secret", "hunter2", "@s")
    assert "certificate" in person.run("keyctl", "show", "@s").stdout
    assert listed(kagent) == []
    padd(person, keys.rsa(2048), "the key itself")
    assert listed(kagent) == [line(keys.rsa(2048), "the key itself")]


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content).to_bytes(2, "big")
    return bytes((tag, 0x82)) + length + content


@pytest.mark.parametrize("bits", [5000, 16392])
def test_a_key_that_nobody_can_compute_with(kagent: Agent, bits: int) -> None:
    """The kernel takes it, and says at each use that it has no memory: the others are found."""
    person = kagent.person
    numbers = [(1 << bits) - 1, 65537, *(3,) * 6]
    integers = [der(2, b"\0" + one.to_bytes(bits // 8, "big").lstrip(b"\0")) for one in numbers]
    key = der(0x30, b"\x02\x01\0", *integers)
    rsa = bytes.fromhex("300d06092a864886f70d0101010500")
    whole = person.file("giant", der(0x30, b"\x02\x01\0", rsa, der(4, key)))
    person.run("sh", "-c", f"keyctl padd asymmetric giant @s < {whole}")
    path = keys.rsa(2048)
    padd(person, path, "deploy")
    assert listed(kagent) == [line(path, "deploy")]
    kagent.run("ssh-add", "-t", "100", person.file("loaded", path))
    assert listed(kagent) == [line(path, "key-2048-0")]
    kagent.run("ssh-add", "-D")
    assert listed(kagent) == []


def test_removed_with_ssh_add(kagent: Agent) -> None:
    """One, and all; from the kernel, and not only from the list."""
    person = kagent.person
    paths = [keys.rsa(2048, 0), keys.rsa(2048, 1), keys.rsa(3072)]
    for number, path in enumerate(paths):
        padd(person, path, f"key {number}")
    kagent.run("ssh-add", "-d", person.file("gone.pub", paths[1].with_suffix(".pub")))
    assert listed(kagent) == [line(paths[n], f"key {n}") for n in (0, 2)]
    assert "key 1" not in person.run("keyctl", "show", "@s").stdout
    kagent.run("ssh-add", "-D")
    assert listed(kagent) == []
    assert "asymmetric" not in person.run("keyctl", "show", "@s").stdout


def test_a_constraint_holds_for_the_adopted_copy_too(kagent: Agent) -> None:
    """It could be used around the constraint, and without it when the lifetime ends."""
    person = kagent.person
    path = keys.rsa(2048)
    padd(person, path, "deploy")
    kagent.run("ssh-add", "-t", "5", person.file("key", path))
    assert "asymmetric" not in person.run("keyctl", "show", "@s").stdout
    wait_until(lambda: listed(kagent) == [])


def test_locked(kagent: Agent) -> None:
    person = kagent.person
    padd(person, keys.rsa(2048), "deploy")
    public = person.file("key.pub", keys.rsa(2048).with_suffix(".pub"))
    askpass = person.file("askpass", "#!/bin/sh\necho secret\n", 0o700)
    ask = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    kagent.run("ssh-add", "-x", **ask)
    assert listed(kagent) == []
    assert kagent.run("ssh-add", "-T", public, check=False).returncode != 0
    kagent.run("ssh-add", "-X", **ask)
    kagent.run("ssh-add", "-T", public)


@pytest.mark.parametrize("damage", ["missing", "damaged", "another's"])
def test_a_record_that_is_not_whole(person: Person, damage: str) -> None:
    """The key is refused, with a line in the log, and not adopted as one without constraints."""
    path = keys.rsa(2048)
    with agent(person) as first:
        first.run("ssh-add", person.file("key", path))
        first.run("ssh-add", person.file("other", keys.rsa(2048, 1)))
    fingerprint = line(path, "").split()[1]
    name = f"kagent:{fingerprint}"
    record = person.run("keyctl", "search", "@s", "big_key", name).stdout.strip()
    with agent(person) as second:
        assert len(listed(second)) == 2
        if damage == "missing":
            person.run("keyctl", "unlink", record)
        elif damage == "damaged":
            person.run("keyctl", "update", record, "damaged")
        else:
            other = re.search(
                r"big_key: (kagent:SHA256:(?!" + re.escape(fingerprint[7:]) + r")\S+)",
                person.run("keyctl", "show", "@s").stdout,
            )
            assert other
            script = f"keyctl pipe %big_key:{other[1]} | keyctl pupdate {record}"
            person.run("sh", "-c", script)
        assert listed(second) == [line(keys.rsa(2048, 1), "key-2048-1")]
        public = person.file("key.pub", path.with_suffix(".pub"))
        assert second.run("ssh-add", "-T", public, check=False).returncode != 0
        assert listed(second) == [line(keys.rsa(2048, 1), "key-2048-1")]
        assert second.logged().count(f"{name}: ") == 1
        # Loaded again, all is well.
        second.run("ssh-add", person.home / "key")
        second.run("ssh-add", "-T", public)


def test_the_example_of_the_library(person: Person) -> None:
    """Load, sign, verify, recover."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    make = "openssl genpkey -algorithm RSA -outform DER -pkeyopt rsa_keygen_bits:1024"
    for exponent in EXPONENTS:
        person.run("sh", "-c", f"{make} -pkeyopt rsa_keygen_pubexp:{exponent} -out priv.der")
        person.run("sh", "-c", "openssl pkcs8 -topk8 -nocrypt -in priv.der -outform DER >priv.p8")
        told = person.run(sys.executable, "-c", found[1]).stdout.split()
        modulus = person.run("openssl", "rsa", "-in", "priv.der", "-noout", "-modulus").stdout
        assert told == [str(exponent), modulus.strip().removeprefix("Modulus=").lower()]
