"""A target for each thing that kagent reads and others wrote: bytes go in, and nothing comes out.

A target raises only where kagent is wrong: an error that isn't documented, or an answer that isn't
true.  What is true is said by an independent reader where there is one (cryptography, asyncssh,
paramiko, re), and else by writing again what was read.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import asyncssh
import bcrypt
import paramiko
from asyncssh.public_key import decode_ssh_public_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from cryptography.hazmat.primitives.serialization.ssh import (
    SSHCertificate,
    load_ssh_private_key,
    load_ssh_public_identity,
)

from kagent import log, text
from kagent.cli.client import AgentError, Client
from kagent.configuration.identities import Identities
from kagent.configuration.settings import configured
from kagent.custody.configured import Configuration
from kagent.custody.device import Handle, NotTaken, Providers
from kagent.custody.identity import Identity
from kagent.front.destinations import check_signature, check_visible
from kagent.front.sessions import NotPermitted, Session, Sessions
from kagent.jobs.jobs import Job, SignJob, pack_answer, unpack_answer
from kagent.jobs.questions import ListBehind, SignBehind, pack_inquiry, unpack_inquiry
from kagent.keyctl import proc
from kagent.openssh import hostkeys, pkcs11helper, skhelper, times
from kagent.openssh.helpers import HelperError
from kagent.openssh.hostnames import Destination
from kagent.private import prepared, sealed
from kagent.private.keyfile import KeyFileError, parse_any, public_key
from kagent.private.keyfile import parse as parse_file
from kagent.private.library import KeyRefused, der, from_der, library_key
from kagent.private.verify import (
    BadSignature,
    CannotVerify,
    check_certificate,
    check_usable,
    verify,
)
from kagent.protocol import userauth
from kagent.protocol.algorithms import KEY_TYPES, WEBAUTHN, algorithm_of
from kagent.protocol.constraints import CONSTRAINTS, Constraint
from kagent.protocol.messages import MAX_PAYLOAD, RequestIdentities, Shown, decode, encode
from kagent.protocol.patterns import matches, matches_list
from kagent.protocol.privatekey import PRIVATE_KEY, NamedPrivateKey, RsaPrivateKey
from kagent.protocol.publickey import PublicKey, parse_line
from kagent.protocol.wire import STRING, TEXT, ProtocolError, Reader, Record
from kagent.provision.policy import Policy, PolicyError
from kagent.workers import token
from kagent.workers.relay import AgentBehind
from tests.support.certificates import AUTHORITY

T = TypeVar("T")
PASSPHRASE = b"secret"


@dataclass(frozen=True)
class Target:
    """`reads` are the modules that it is to reach all of, below kagent/."""

    name: str
    run: Callable[[bytes], None]
    reads: tuple[str, ...]
    needs_root: bool = False

    @property
    def corpus(self) -> Path:
        """Its examples; why each is one is told in the file REASONS beside them."""
        return Path(__file__).parent / "corpus" / self.name

    @property
    def examples(self) -> list[bytes]:
        """The content of these files."""
        return [path.read_bytes() for path in sorted(self.corpus.iterdir())]


TARGETS: dict[str, Target] = {}


def target(*reads: str, needs_root: bool = False) -> Callable[[Callable[[bytes], None]], None]:
    def register(run: Callable[[bytes], None]) -> None:
        name = run.__name__.replace("_", "-")
        TARGETS[name] = Target(name, run, reads, needs_root)

    return register


def taken(read: Callable[..., T], *given: object, refused: type[Exception]) -> T | None:
    """What is read of it; None if it is refused as it should be."""
    try:
        return read(*given)
    except refused:
        return None


def by_others(read: Callable[..., T], *given: object) -> T | None:
    """What an independent reader makes of it; None if it refuses, whatever it raises."""
    try:
        return read(*given)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a panic of Rust's is no Exception
        return None


# The protocol.


@target("protocol/messages.py", "protocol/wire.py", "protocol/privatekey.py")
def frames(data: bytes) -> None:
    """A client's frame, without its length."""
    message = taken(decode, data, refused=ProtocolError)
    if message is None:
        return
    written = encode(message)
    assert int.from_bytes(written[:4], "big") == len(written) - 4
    assert decode(written[4:]) == message
    assert encode(decode(written[4:])) == written


@target("protocol/constraints.py")
def constraints(data: bytes) -> None:
    """What a key is sent with, and whether it can be used then."""
    read = taken(CONSTRAINTS.parse, data, refused=ProtocolError)
    if read is None:
        return
    written = CONSTRAINTS.write(read)
    assert CONSTRAINTS.parse(written) == read
    # No constraint is lost, and none is put in: but for C's ends of strings, it is to the byte.
    assert len(written) == len(data) or b"\0" in data
    assert len({type(one) for one in read}) == len(read)
    _use(read)


def _use(read: tuple[Constraint, ...]) -> None:
    """With hosts on the way that are among those that the examples name."""
    identity = Identity(RSA_BLOB, "key", "sealed", constraints=read)  # type: ignore[arg-type]
    sessions = Sessions()
    sessions.attempted = True
    sessions.bound.append(Session(PublicKey.parse(STABLE_HOST), b"session", False))
    login = userauth.Login(b"session", "root", PublicKey.parse(STABLE_HOST))
    for check, *more in ((check_visible,), (check_signature, login)):
        try:
            check(identity, sessions, *more, time.time())  # type: ignore[operator]
        except NotPermitted:
            pass


@target("protocol/publickey.py", "protocol/algorithms.py")
def public_keys(data: bytes) -> None:
    """A key's blob, which asyncssh reads as well."""
    anyhow = taken(PublicKey.parse_any, data, refused=ProtocolError)
    key = taken(PublicKey.parse, data, refused=ProtocolError)
    assert key is None or key == anyhow
    assert anyhow is None or anyhow.known == (key is not None)
    if key is not None:
        again, _ = parse_line(f"{key.line()} a comment")
        assert again == key
        assert (again.bits, again.kind, again.fingerprint()) == (
            key.bits,
            key.kind,
            key.fingerprint(),
        )
        assert PublicKey.parse(key.plain_blob).certificate is None
    usable = key is not None and _is_usable(key)
    theirs = _asyncssh_key(data)
    # OpenSSH refuses an application with a NUL, which asyncssh takes, and takes other bytes.
    of_token = data[4:].startswith(b"sk-")
    unusual = of_token if key is None else _is_unusual(key)
    if theirs is not None and theirs.public_data == data and not unusual:
        assert usable, "asyncssh takes it"
    if usable and key and key.certificate is None and "mldsa" not in key.type:
        plain = str(key.numbers.get("application", "")).isascii()
        assert theirs is not None or not plain, "asyncssh refuses it"


def _is_usable(key: PublicKey) -> bool:
    try:
        check_usable(key)
    except BadSignature:
        return False
    return True


def _asyncssh_key(blob: bytes) -> asyncssh.SSHKey | None:
    try:
        known = TEXT.read(Reader(blob)) in KEY_TYPES
    except ProtocolError:
        return None
    return by_others(decode_ssh_public_key, blob) if known else None


def _line(blob: bytes) -> bytes:
    return STRING.read(Reader(blob)) + b" " + b64encode(blob)


def _is_unusual(key: PublicKey) -> bool:
    """Whether it is what OpenSSH refuses, and others don't."""
    point = key.numbers.get("point", b"")
    return (key.bits not in range(1024, 16385) and not key.about.bits) or (
        bool(key.about.curve) and point[:1] != b"\4"  # type: ignore[index]
    )


@target("private/verify.py", "protocol/publickey.py")
def certificates(data: bytes) -> None:
    """A certificate up to its signature, which is made here; read by cryptography as well."""
    made = STRING.write(TEXT.write("ssh-ed25519") + STRING.write(AUTHORITY.sign(data)))
    for blob in (data, data + made):
        key = taken(PublicKey.parse, blob, refused=ProtocolError)
        good = False
        if key is not None:
            try:
                good = check_certificate(key)
            except BadSignature:
                pass
        if not good and _cryptography_takes(blob):
            raise AssertionError("cryptography takes it")


def _cryptography_takes(blob: bytes) -> bool:
    """But for what OpenSSH refuses by rules of its own."""
    certificate = by_others(lambda: load_ssh_public_identity(_line(blob)))
    if not isinstance(certificate, SSHCertificate):
        return False
    if by_others(lambda: [certificate.verify_cert_signature()]) is None:
        return False
    texts = (certificate.key_id, *certificate.valid_principals)
    return b"\0" not in b"".join(texts) and len(certificate.valid_principals) <= 256


@target("private/verify.py")
def signatures(data: bytes) -> None:
    """A key's blob, a signature, and what was signed; asyncssh verifies it too."""
    reader = Reader(data)
    try:
        key, signature = PublicKey.parse(STRING.read(reader)), STRING.read(reader)
        signed = reader.rest()
    except ProtocolError:
        return
    try:
        made_with = verify(key, signature, signed)
        good = True
    except CannotVerify:
        return
    except BadSignature:
        good, made_with = False, ""
    theirs = _asyncssh_key(key.blob)
    if theirs is not None and theirs.public_data == key.blob:
        assert good == theirs.verify(signed, signature) or made_with == WEBAUTHN


@target("protocol/userauth.py")
def to_be_signed(data: bytes) -> None:
    """What a client wants signed, which paramiko reads as well."""
    found = userauth.recognise(data, USER)
    if not isinstance(found, userauth.Login):
        return
    message = paramiko.Message(data)
    read = [
        *(message.get_binary(), message.get_byte()),
        *(_without_end(message.get_binary()) for _ in range(3)),
        *(message.get_byte(), _without_end(message.get_binary()), message.get_binary()),
    ]
    session, number, user, service, method, signed, algorithm, blob = read
    assert session
    assert session == found.session_id
    assert (number, service, signed) == (b"2", b"ssh-connection", b"\1")
    assert user == found.user.encode("utf-8", "surrogateescape")
    assert (algorithm, blob) == (b"ssh-ed25519", USER.blob)
    host = message.get_binary() if method == b"publickey-hostbound-v00@openssh.com" else None
    assert host == (found.host_key.blob if found.host_key else None)
    assert message.get_remainder() == b""


def _without_end(word: bytes) -> bytes:
    return word.removesuffix(b"\0")


# Private keys.


@target("private/library.py", "private/sealed.py", "protocol/privatekey.py")
def private_keys(data: bytes) -> None:
    """A key as an agent is sent it: what is taken signs, and its public half verifies that."""
    named = taken(PRIVATE_KEY.parse, data, refused=ProtocolError)
    key = None if named is None else taken(library_key, named, refused=KeyRefused)
    if named is None or key is None:
        return
    public = PublicKey.parse(named.public_blob)
    algorithm = algorithm_of(public.plain_type, 2)
    try:
        made = sealed.sign(from_der(der(key)), algorithm, b"data")
    except ValueError:
        return  # nothing wrong is signed
    assert verify(public, made, b"data") == algorithm


@target("private/library.py", "private/sealed.py")
def sealed_keys(data: bytes) -> None:
    """What a load worker has left to be sealed; it may have been taken over by what it read."""
    for algorithm in ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256", "ssh-mldsa44-ed25519"):
        try:
            key = sealed.parse(data)
        except (TypeError, ValueError):
            return
        try:
            sealed.sign(key, algorithm, b"data")
        except Exception:  # whatever it raises, a sign worker refuses
            continue


@target("private/keyfile/openssh.py", "private/keyfile/either.py")
def openssh_keys(data: bytes) -> None:
    """A file in OpenSSH's format, which cryptography reads as well."""
    read = taken(public_key, data, refused=KeyFileError)
    with _quick_passphrases() as rounds:
        for passphrase in (b"", PASSPHRASE):
            ours = taken(parse_file, data, passphrase, refused=KeyFileError)
            if ours is None or max(rounds, default=0) > 100:
                continue  # the other reader has a derivation of its own
            assert read is not None
            assert ours[0].public_blob == read.blob
            theirs = _cryptography_blob(data, passphrase)
            if theirs is None:
                assert not _is_whole(ours[0]) or _has_cipher_of_ssh(data)
            elif _is_whole(ours[0]):
                assert theirs == read.blob


def _cryptography_blob(data: bytes, passphrase: bytes) -> bytes | None:
    # It refuses a passphrase that isn't needed.
    for given in (passphrase or None, None):
        if key := by_others(load_ssh_private_key, data, given):
            line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            return parse_line(line.decode())[0].blob
    return None


def _is_whole(named: NamedPrivateKey) -> bool:
    """Whether it is a key that cryptography knows, and its halves fit."""
    known = not KEY_TYPES[named.type].on_token and "mldsa" not in named.type
    if isinstance(named.key, RsaPrivateKey):
        # Which kagent computes anew, and cryptography compares.
        known = known and named.key.iqmp * named.key.q % named.key.p == 1
    return known and taken(library_key, named, refused=KeyRefused) is not None


def _has_cipher_of_ssh(data: bytes) -> bool:
    """Whether it may be encrypted with what cryptography doesn't know."""
    content = b64decode(data.split(b"-----")[2])
    return b"chacha20" in content or b"3des" in content


@contextmanager
def _quick_passphrases() -> Iterator[list[int]]:
    """A file says how many rounds its passphrase takes, up to hours: here it is one.

    The list gets what the files say.
    """
    derive, asked = bcrypt.kdf, []

    def once(passphrase: bytes, salt: bytes, length: int, rounds: int, **more: bool) -> bytes:
        asked.append(rounds)
        return derive(passphrase, salt, length, min(rounds, 1), **more)

    with patch.object(bcrypt, "kdf", once):
        yield asked


@target("private/keyfile/pem.py", "private/keyfile/either.py")
def pem_keys(data: bytes) -> None:
    """PEM and DER, as files have them and as kagent-provision is given them; asyncssh reads it."""
    # Other encryption may take as long as the file says.
    for passphrase in (b"", PASSPHRASE) if b"DEK-Info" in data else (b"",):
        file = taken(parse_file, data, passphrase, refused=KeyFileError)
        printed = taken(parse_any, data, passphrase, refused=KeyFileError)
        if file is not None:
            assert printed == file[0] or data.startswith(b"0")  # PEM in what begins as DER
        if printed is None:
            continue
        assert PublicKey.parse(printed.public_blob).certificate is None
        theirs = by_others(asyncssh.import_private_key, data, passphrase or None)
        assert theirs is None or theirs.public_data == printed.public_blob


@target("protocol/publickey.py")
def public_lines(data: bytes) -> None:
    """A line of a .pub file."""
    found = taken(parse_line, data.decode("utf-8", "surrogateescape"), refused=ProtocolError)
    if found is not None:
        key, comment = found
        assert parse_line(f"{key.line()} {comment}") == (key, comment.strip())


# What is kept in the kernel, and what it tells.


@target("custody/identity.py")
def records(data: bytes) -> None:
    """A record, in a keyring that others write to."""
    identity = taken(Identity.parse, data, refused=ProtocolError)
    if identity is None:
        return
    assert Identity.parse(identity.write()) == identity
    assert identity.ended(2**64) == bool(identity.deadline)
    assert len(identity.description) == 57
    identity.beginning(0).write()


@target("custody/device.py")
def handles(data: bytes) -> None:
    """A token's handle, as a load worker that may have been taken over has left it."""
    for remote in (False, True):
        handle = Handle(remote, data)
        assert Handle.parse(handle.write()) == handle
        try:
            held = Providers("*").take_again(handle, SK_BLOB)
        except (NotTaken, ProtocolError):
            continue
        assert held.key.public_blob == SK_BLOB
        assert held.provider == "internal" or (os.path.isabs(held.provider) and not remote)


@target("keyctl/proc.py", "openssh/times.py")
def proc_keys(data: bytes) -> None:
    """/proc/keys, with what any user's key calls itself."""
    for one in proc.parse(data.decode(errors="replace")):
        assert 0 < one.key.serial < 2**31
        assert one.under_construction == ("U" in one.flags)
        assert one.negative == ("N" in one.flags)
        left = one.seconds_left
        assert left is None or 0 <= left < 2**63


# Files.


@target("openssh/hostkeys.py", "protocol/patterns.py")
def known_hosts(data: bytes) -> None:
    for line in hostkeys.lines(data):
        key = line.key
        assert key is None or parse_line(key.line())[0] == key
    for host in ("host", "[host]:2222", "10.0.0.1"):
        for line in hostkeys.keys_of(data, host):
            assert line.fits(host)
    names = hostkeys.names_of(data, STABLE_HOST, ["host", "other"])
    assert len(set(names)) == len(names)
    for name in names:
        [*found] = (line for line in hostkeys.keys_of(data, name) if line.key)
        assert any(line.key and line.key.blob == STABLE_HOST for line in found)
        assert not any(line.marker is hostkeys.Marker.REVOKED for line in found if _is_host(line))


def _is_host(line: hostkeys.Line) -> bool:
    return line.key is not None and line.key.blob == STABLE_HOST


@target("configuration/toml.py", "configuration/settings.py", "configuration/identities.py")
def configuration(data: bytes) -> None:
    """kagent.toml: what is wrong with it is told, and what stands beside that counts."""
    folder = _folder()
    (folder / "kagent").mkdir(exist_ok=True)
    file = folder / "kagent/kagent.toml"
    file.write_bytes(data)
    with patch.dict(os.environ, XDG_CONFIG_HOME=str(folder)):
        options, faults = configured()
        read = Identities.read()
    for fault in (*faults, *read.faults):
        assert fault.file == str(file)
        assert fault.what
        assert 0 <= fault.line <= data.count(b"\n") + 1
    for name, value in options:
        assert name.startswith("-")
        assert name != "--behind" or os.path.isabs(value)
    assert len({entry.public.blob for entry in read.entries}) == len(read.entries)
    for entry in read.entries:
        assert entry.has_source or not (entry.lifetime or entry.idle or entry.passphrase)


@target("custody/configured.py")
def identities(data: bytes) -> None:
    """The lines that configure keys."""
    file = _folder() / "identities"
    file.write_bytes(data)
    read = Configuration.read(file)
    for one in read.identities:
        assert one.public.bits in one.public.about.kernel_bits
        # What the kernel is asked for is an argument of a system call.
        assert one.description
        assert "\0" not in one.description
        assert read.find(one.public.blob)
    for fault in read.faults:
        assert fault.startswith(f"{file}")


@target("provision/policy.py", "openssh/times.py", needs_root=True)
def policies(data: bytes) -> None:
    """provision.toml."""
    file = _folder() / "provision.toml"
    file.write_bytes(data)
    policy = taken(Policy.read, file, refused=PolicyError)
    for rule in policy.rules if policy else ():
        assert rule.users or rule.groups
        assert rule.lifetime >= 1
        assert 1 <= rule.timeout <= 50
        assert all(program.startswith("/") for program in rule.programs)


def _folder() -> Path:
    return Path(_temporary().name)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """In memory, and gone with this process."""
    return tempfile.TemporaryDirectory(prefix="kagent-fuzz-", dir="/dev/shm")


# What helpers and other agents answer.


@target("openssh/skhelper.py", "openssh/helpers.py")
def sk_answers(data: bytes) -> None:
    for read in (skhelper.read_signature, skhelper.read_resident):
        taken(read, "ssh-sk-helper", data, refused=HelperError)


@target("openssh/pkcs11helper.py", "workers/token.py", "private/prepared.py")
def pkcs11_answers(data: bytes) -> None:
    """A helper's answer to each request; what is passed on is a good signature."""
    blobs = {USER.blob, RSA_BLOB}
    with patch.object(log, "warning", str), _helper(data) as helper:
        keys = taken(helper.insert, "library", memoryview(bytearray(b"pin")), refused=HelperError)
        for key in token._usable(keys or ()):
            assert PublicKey.parse(key.blob).certificate is None
    for blob, algorithm in ((USER.blob, "ssh-ed25519"), (RSA_BLOB, "rsa-sha2-256")):
        with _helper(data) as helper:
            signer = token.Signer(helper, "library", blobs)
            asked = token.TokenSignature(blob, algorithm, b"data")
            made = taken(signer.sign, asked, refused=HelperError)
        if made is not None:
            assert verify(PublicKey.parse(blob), made, b"data") == algorithm


@contextmanager
def _helper(answer: bytes) -> Iterator[pkcs11helper.Helper]:
    """One that answers so to the first request, and has ended then."""
    with _Answering(answer) as stream:
        helper = pkcs11helper.Helper.__new__(pkcs11helper.Helper)
        helper._stream = stream  # type: ignore[assignment]
        yield helper


class _Answering:
    """A socket at whose other end somebody answers once a whole request has come."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._sent = 0
        self._ours, self._theirs = socket.socketpair()

    def __enter__(self) -> _Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        return self._ours.fileno()

    def recv(self, length: int) -> bytes:
        return self._ours.recv(length)

    def sendall(self, data: bytes) -> None:
        self._sent += 1
        if self._sent == 2:  # after the length
            self._theirs.sendall(self._answer)
            self._theirs.shutdown(socket.SHUT_WR)


@target("private/prepared.py")
def prepared_signatures(data: bytes) -> None:
    """What a token makes of what its mechanism signs."""
    for algorithm in ("rsa-sha2-512", "ecdsa-sha2-nistp256"):
        taken(prepared.finish, algorithm, data, refused=ValueError)


@target("workers/relay.py")
def agents_behind(data: bytes) -> None:
    """All that an agent behind answers, to be listed and to a request for a signature."""
    asked = [
        ListBehind((b"a kagent",), (b"a bind",)),
        SignBehind((), (), USER.blob, b"data", 0),
        SignBehind((), (), RSA_BLOB, b"data", 2),
    ]
    for request in asked:
        with _answering(data) as stream:
            behind = AgentBehind.__new__(AgentBehind)
            behind._fault, behind._since, behind._stream = "", time.monotonic(), stream
            told = behind.answer(request)
        assert unpack_answer(pack_answer(told)) == told
        if isinstance(request, SignBehind):
            if hasattr(told, "signature"):
                assert verify(PublicKey.parse(request.blob), told.signature, b"data")
        elif hasattr(told, "keys"):
            assert len(told.keys) <= 256
            for key in told.keys:
                assert key.comment.isprintable()
                check_usable(PublicKey.parse(key.blob))


@target("cli/client.py", "protocol/messages.py")
def agents_asked(data: bytes) -> None:
    """What the agent at SSH_AUTH_SOCK answers to kagent-add and kagentctl."""
    for ask in (
        lambda client: client.request(RequestIdentities(), Record),
        Client.shown,
        Client.explanation,
        Client.why_not_shown,
    ):
        with _answering(data) as stream:
            client = Client.__new__(Client)
            client._stream = stream
            try:
                told = ask(client)
            except (AgentError, ProtocolError):
                continue
        for one in told if isinstance(told, tuple) else ():
            assert isinstance(one, Shown)
            times.date(one.expires, "%F")


@contextmanager
def _answering(data: bytes) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:MAX_PAYLOAD])
        theirs.shutdown(socket.SHUT_WR)
        yield ours


# What kagent's processes say to each other: one of them may have been taken over.


@target("jobs/jobs.py", "jobs/questions.py")
def jobs(data: bytes) -> None:
    for cls in (Job, SignJob):
        job = taken(cls.unpack, data, refused=ValueError)
        assert job is None or cls.unpack(job.pack()) == job  # type: ignore[arg-type]
    answer = unpack_answer(data)
    assert answer is None or unpack_answer(pack_answer(answer)) == answer
    inquiry = taken(unpack_inquiry, data, refused=ProtocolError)
    assert inquiry is None or unpack_inquiry(pack_inquiry(inquiry)) == inquiry


# Words.


@target("openssh/times.py")
def spans(data: bytes) -> None:
    """A span of time, and as a date."""
    span = taken(times.seconds, data.decode("utf-8", "surrogateescape"), refused=ValueError)
    if span is not None:
        assert 0 <= span < 2**31
        assert times.seconds(str(span)) == span
        assert times.timeframe(span)
    for local in (False, True):
        assert times.date(int.from_bytes(data[:8], "big"), "%FT%T", local=local)


@target("protocol/patterns.py")
def patterns(data: bytes) -> None:
    """A text, a NUL, and a pattern or a list of them; re knows patterns too."""
    name, _, pattern = (part.decode("utf-8", "surrogateescape") for part in data.partition(b"\0"))
    matches_list(name, pattern)
    if len(name) > 40 or pattern.count("*") > 4:
        return
    bytewise = [one.encode("utf-8", "surrogateescape") for one in (name, pattern)]
    wanted = b"".join(
        {b"*": b".*", b"?": b"."}.get(one, re.escape(one))
        for one in (bytewise[1][at : at + 1] for at in range(len(bytewise[1])))
    )
    assert matches(name, pattern) == bool(re.fullmatch(wanted, bytewise[0], re.DOTALL))
    if "," not in pattern and not pattern.startswith("!"):
        assert matches_list(name, pattern) == (bool(pattern) and matches(name, pattern))


@target("text.py")
def shown_texts(data: bytes) -> None:
    """What others call things, on a terminal, in a question and in the log."""
    told = data.decode("utf-8", "surrogateescape")
    line = text.printable(told)
    assert line.replace(" ", "").isprintable()
    assert text.printable(line) == line
    line.encode()
    short = text.shown(told)
    assert short.isprintable()
    assert not set('<>&"\n').intersection(short)
    assert text._width(short) <= 64
    word = text.quoted(told)
    assert word.isprintable()
    assert (word[:1] == word[-1:] == '"' and len(word) > 1) or not set('" =\\').intersection(word)
    text.as_it_came(told).encode("utf-8", "surrogateescape")


@target("workers/hostnames.py")
def command_lines(data: bytes) -> None:
    """What a process says that it was called with."""
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    found = Destination.of(words)
    if found:
        assert set(found.names) is not None
        assert any(found.host in word for word in words)


# Keys that stay the same, or the examples would fit no longer.
_KEYS = Path(__file__).parent / "corpus/public-keys"
STABLE_HOST = (_KEYS / "ed25519").read_bytes()
USER = PublicKey.parse(STABLE_HOST)
RSA_BLOB = (_KEYS / "rsa").read_bytes()
SK_BLOB = (_KEYS / "sk-ed25519").read_bytes()
