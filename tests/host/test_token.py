"""Keys of FIDO tokens: OpenSSH's test provider is the token, its programs are the judges."""

from __future__ import annotations

import base64
import hashlib
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kagent.custody.device import Handle, NotTaken, Providers, WebSafety
from kagent.jobs.questions import DeviceSignature
from kagent.openssh import skhelper
from kagent.openssh.helpers import HelperError
from kagent.private.keyfile import parse
from kagent.private.verify import BadSignature, verify
from kagent.protocol.constraints import Constraint, Lifetime, SkProvider
from kagent.protocol.privatekey import (
    PRIVATE_KEY,
    NamedPrivateKey,
    SkEcdsaCertifiedKey,
    SkEd25519CertifiedKey,
    SkEd25519PrivateKey,
)
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import STRING, TEXT, ProtocolError
from kagent.workers import device
from tests.support.programs import Person, agent
from tests.support.tokens import ASKPASS, PROVIDER, TOUCHED, WANTS_PIN

# Any library that is where providers are looked for.
LIBRARY = re.findall(r"(/usr/lib\S*/libc\.so\S*)", Path("/proc/self/maps").read_text())[0]
TAKES_ALL = Providers(allowed="*")
SAYS = """\
#!/usr/bin/python3 -SE
import sys
sys.stdin.buffer.read(4)
sys.stdout.buffer.write(bytes.fromhex("{answer}"))
"""


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test works; nobody is there to be asked."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS", "SSH_SK_HELPER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def helper(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of ssh-sk-helper."""

    def replace(program: str) -> None:
        monkeypatch.setenv("SSH_SK_HELPER", str(script("helper", program)))

    return replace


@pytest.fixture
def askpass(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A user with a display, who answers what `answer` has; tells what was shown."""
    monkeypatch.setenv("SSH_ASKPASS", str(script("askpass", ASKPASS)))
    monkeypatch.setenv("DISPLAY", ":9")
    Path("askpass.log").touch()
    return lambda: Path("askpass.log").read_text().splitlines()


def script(name: str, program: str) -> Path:
    path = Path(name).absolute()
    path.write_text(program)
    path.chmod(0o700)
    return path


def keygen(*words: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True)


def make(type: str, *options: str, name: str = "key") -> NamedPrivateKey:
    """A key of the test provider, in a file of that name."""
    words = [word for option in options for word in ("-O", option)]
    keygen("-t", type, "-w", PROVIDER, "-N", "", "-f", name, *words)
    return parse(Path(name).read_bytes())[0]


def certified(named: NamedPrivateKey) -> NamedPrivateKey:
    """The key in the file `key` with a certificate, as ssh-add sends it."""
    keygen("-t", "ed25519", "-N", "", "-f", "ca")
    keygen("-s", "ca", "-I", "me", "-n", "root", "key.pub")
    certificate, _ = parse_line(Path("key-cert.pub").read_text())
    cls = {"ssh-": SkEd25519CertifiedKey, "ecds": SkEcdsaCertifiedKey}[certificate.type[3:7]]
    private = {name: getattr(named.key, name) for name in cls.__match_args__[1:]}
    return NamedPrivateKey(certificate.type, cls(certificate.blob, **private))


def taken(named: NamedPrivateKey) -> bytes:
    """What is kept of the key."""
    held = TAKES_ALL.take(named, [SkProvider(PROVIDER), Lifetime(60)], from_remote=False)
    assert held is not None
    return Handle(from_remote=False, left=held.write()).write()


def sign_by_token(request: DeviceSignature, payload: bytes) -> bytes:
    return device.sign_by_token(request, payload, TAKES_ALL)


@pytest.mark.parametrize("with_certificate", [False, True], ids=["plain", "certificate"])
@pytest.mark.parametrize("type", ["ed25519-sk", "ecdsa-sk"])
def test_a_signature_is_good(type: str, with_certificate: bool) -> None:
    """By the word of ssh-keygen and of kagent-add -T."""
    named = certified(make(type)) if with_certificate else make(type)
    message = b"a message"
    # PROTOCOL.sshsig
    about = TEXT.write("file") + STRING.write(b"") + TEXT.write("sha512")
    data = b"SSHSIG" + about + STRING.write(hashlib.sha512(message).digest())
    signature = sign_by_token(DeviceSignature(named.public_blob, data, ""), taken(named))

    key = PublicKey.parse(named.public_blob)
    assert verify(key, signature, data) == key.plain_type
    counter, flags = len(signature) - 1, len(signature) - 5
    forgeries = [
        (signature[:place] + bytes((signature[place] ^ 1,)) + signature[place + 1 :], data)
        for place in (counter, flags)
    ]
    for forged, signed in [*forgeries, (signature + b"\0", data), (signature, data + b"\0")]:
        with pytest.raises(BadSignature):
            verify(key, forged, signed)

    plain = STRING.write(key.plain_blob)
    armour = b"SSHSIG\0\0\0\1" + plain + about + STRING.write(signature)
    text = base64.encodebytes(armour).decode()
    Path("signature").write_text(
        f"-----BEGIN SSH SIGNATURE-----\n{text}-----END SSH SIGNATURE-----\n"
    )
    Path("allowed").write_text(f"me {Path('key.pub').read_text()}")
    words = ["-Y", "verify", "-f", "allowed", "-I", "me", "-n", "file", "-s", "signature"]
    told = subprocess.run(["ssh-keygen", *words], input=message, capture_output=True)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("type", ["ed25519-sk", "ecdsa-sk"])
def test_kagent_add_tests_keys_of_tokens(desk: Path, person: Person, type: str) -> None:
    """-T, as ssh-add does, with ssh-agent's signature."""
    make(type)
    with agent(person, "ssh-agent", f"-P{PROVIDER}") as other:
        other.run("ssh-add", "-q", "-S", PROVIDER, desk / "key")
        for program in ("ssh-add", "kagent-add"):
            told = other.run(program, "-T", desk / "key.pub")
            assert (told.stdout, told.stderr) == ("", "")


def test_a_user_who_touches_and_types(
    desk: Path, helper: Callable[[str], None], askpass: Callable[[], list[str]]
) -> None:
    """ssh-agent's prompts: the first is taken away again, and only the second wants an answer."""
    named = make("ed25519-sk")
    fingerprint = PublicKey.parse(named.public_blob).fingerprint()
    request = DeviceSignature(named.public_blob, b"data", "for somebody\x1b\nsomewhere")
    payload = taken(named)
    details = ["for somebody\\x1b", "somewhere"]
    notice = [f"none: Confirm user presence for key ED25519-SK {fingerprint}", *details]
    question = [
        f": Enter PIN and confirm user presence for ED25519-SK key {fingerprint}",
        *details[:-1],
        f"{details[-1]}: ",
    ]
    helper(TOUCHED)
    sign_by_token(request, payload)
    assert askpass() == notice

    (desk / "askpass.log").write_text("")
    helper(WANTS_PIN)
    (desk / "answer").write_text("1234\n")
    verify(PublicKey.parse(named.public_blob), sign_by_token(request, payload), b"data")
    assert askpass() == [*notice, *question]
    (desk / "answer").write_text("4321\n")
    with pytest.raises(skhelper.PinRequired, match="incorrect passphrase"):
        sign_by_token(request, payload)
    (desk / "answer").write_text("\n")
    with pytest.raises(HelperError, match="none was given"):
        sign_by_token(request, payload)


def test_a_token_that_nobody_touches(askpass: Callable[[], list[str]]) -> None:
    named = make("ecdsa-sk", "no-touch-required")
    sign_by_token(DeviceSignature(named.public_blob, b"data", ""), taken(named))
    assert askpass() == []


def test_nobody_there_to_type(helper: Callable[[str], None]) -> None:
    named = make("ed25519-sk", "no-touch-required")
    helper(WANTS_PIN)
    with pytest.raises(HelperError, match="none was given"):
        sign_by_token(DeviceSignature(named.public_blob, b"data", ""), taken(named))


def test_a_notice_on_a_terminal() -> None:
    program = "from kagent.openssh import askpass\nwith askpass.notice('touch', 'touched'): pass"
    screen, terminal = pty.openpty()
    with open(screen, "rb", buffering=0) as shown, open(terminal, "wb") as stderr:
        subprocess.run([sys.executable, "-c", program], stderr=stderr, check=True)
        assert shown.read(99).split() == [b"touch", b"touched"]


@pytest.mark.parametrize(
    ("provider", "reason"),
    [("internal", "device not found"), ("/nowhere", "invalid format")],
)
def test_what_the_helper_says(provider: str, reason: str) -> None:
    """In OpenSSH's words."""
    with pytest.raises(HelperError, match=reason):
        skhelper.sign(make("ed25519-sk"), provider, b"data")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (SAYS.format(answer="000000050600000003"), "unsupported version: got 6, expected 5"),
        (SAYS.format(answer="000000050500000002"), "answer of type 2, expected 3"),
        (SAYS.format(answer="0000000905000000000000003c"), "device not found"),
        (SAYS.format(answer="000000090500000000000003e7"), "unknown error 999"),
        (SAYS.format(answer="00000006050000000300"), "malformed"),
        (SAYS.format(answer="00000000"), "malformed"),
        (SAYS.format(answer="ffffffff"), "broke off"),
        (SAYS.format(answer="0000000905"), "broke off"),
        (SAYS.format(answer="000000050500000003") + "sys.exit(1)", "broke off"),
        ("#!/bin/sh\nkill -9 $$", "broke off"),
        ("#!/nowhere", "No such file"),
    ],
)
def test_helpers_that_are_none(helper: Callable[[str], None], program: str, reason: str) -> None:
    helper(program)
    with pytest.raises(HelperError, match=reason):
        skhelper.load_resident(PROVIDER, "")


def test_resident_keys(helper: Callable[[str], None]) -> None:
    """What the test provider can't do, and what another would."""
    with pytest.raises(HelperError, match="requested feature not supported"):
        skhelper.load_resident(PROVIDER, "1234")
    named = make("ed25519-sk")
    one = STRING.write(PRIVATE_KEY.write(named)) + STRING.write(b"") + STRING.write(b"me")
    helper(SAYS.format(answer=STRING.write(b"\x05\0\0\0\x03" + one + one).hex()))
    assert skhelper.load_resident(PROVIDER, "1234") == [named, named]


@pytest.mark.parametrize(
    ("allowed", "provider", "expected"),
    [
        ("*", PROVIDER, True),
        ("/nowhere/*", PROVIDER, False),
        ("/nowhere/*,*.so", PROVIDER, True),
        ("*,!*/sk-dummy.so", PROVIDER, False),
        ("*/link.so", "link.so", False),
        (PROVIDER, "link.so", True),
        ("*", "missing.so", False),
        ("/nowhere/*", "internal", True),
        ("/nowhere/*", "INTERNAL", True),
        (None, PROVIDER, False),
        (None, LIBRARY, True),
    ],
)
def test_providers(
    desk: Path, person: Person, allowed: str | None, provider: str, expected: bool
) -> None:
    """Taken by kagent's rules if and only if ssh-agent -P takes them."""
    named = make("ed25519-sk")
    (desk / "link.so").symlink_to(PROVIDER)
    if provider in ("link.so", "missing.so"):
        provider = str(desk / provider)
    rules = Providers() if allowed is None else Providers(allowed)
    try:
        ours = rules.take(named, [SkProvider(provider)], from_remote=False) is not None
    except NotTaken:
        ours = False
    options = [] if allowed is None else [f"-P{allowed}"]
    with agent(person, "ssh-agent", *options) as other:
        told = other.run("ssh-add", "-q", "-S", provider, desk / "key", check=False)
    assert ours == (told.returncode == 0) == expected


def test_what_is_no_key_of_a_token_or_no_good_one(desk: Path) -> None:
    def refused(named: NamedPrivateKey, *constraints: Constraint, remote: bool = False) -> str:
        with pytest.raises(NotTaken) as caught:
            TAKES_ALL.take(named, constraints, from_remote=remote)
        return str(caught.value)

    keygen("-t", "ed25519", "-N", "", "-f", "plain")
    plain, _ = parse((desk / "plain").read_bytes())
    assert TAKES_ALL.take(plain, [Lifetime(5)], from_remote=True) is None
    assert "not an authenticator-hosted key" in refused(plain, SkProvider("internal"))

    named = make("ed25519-sk")
    assert "without a provider" in refused(named, Lifetime(5))
    assert "remote addition" in refused(named, SkProvider(PROVIDER), remote=True)
    for rules, provider in ((TAKES_ALL, "internal"), (Providers("*", remote=True), PROVIDER)):
        assert rules.take(named, [SkProvider(provider)], from_remote=True) is not None

    key = certified(named).key
    assert isinstance(key, SkEd25519CertifiedKey)
    ours, theirs = SkEd25519CertifiedKey.types[0], SkEcdsaCertifiedKey.types[0]
    other = key.replace(certificate=make("ecdsa-sk", name="other").public_blob)
    for type, wrong in (
        (ours, key.replace(application="https://example.org")),
        (ours, key.replace(point=bytes(32))),
        (ours, other),
        (theirs, key),
    ):
        assert "does not match" in refused(NamedPrivateKey(type, wrong), SkProvider(PROVIDER))


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_damaged_record_signs_nothing(place: int) -> None:
    named = make("ed25519-sk")
    payload = taken(named)
    for damaged in (payload[: place or 1], payload + b"\0", b""):
        with pytest.raises(ProtocolError):
            sign_by_token(DeviceSignature(named.public_blob, b"data", ""), damaged)


@pytest.mark.parametrize(
    ("application", "rules", "demanded"),
    [
        ("ssh:", WebSafety(), False),
        ("ssh:example.org", WebSafety(), False),
        ("https://example.org", WebSafety(), True),
        ("https://example.org", WebSafety(restricted=False), False),
        ("https://example.org", WebSafety(allowed="ssh:*,https://*.org"), False),
        ("ssh:", WebSafety(allowed="https://*"), True),
    ],
)
def test_what_keys_of_the_web_may_sign(application: str, rules: WebSafety, demanded: bool) -> None:
    key = make("ed25519-sk").key
    assert isinstance(key, SkEd25519PrivateKey)
    blob = key.replace(application=application).public_blob(key.types[0])
    assert rules.demands_ssh(PublicKey.parse(blob)) == demanded


def test_other_keys_have_no_web_to_be_safe_from() -> None:
    keygen("-t", "ed25519", "-N", "", "-f", "plain")
    key, _ = parse_line(Path("plain.pub").read_text())
    assert not WebSafety().demands_ssh(key)
