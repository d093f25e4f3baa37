"""kagent-add: ssh-add's command line, for any agent.

Texts and exit codes are ssh-add's: 0 done, 1 not all was done, 2 no agent.  What has no word for
it there, why a kagent refused, follows on a line of its own.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import confine
from ..log import printable
from ..protocol.messages import (
    AddIdentity,
    IdentitiesAnswer,
    RemoveAllIdentities,
    RemoveAllRsaIdentities,
    RemoveIdentity,
    RequestIdentities,
    SignFlags,
    SignRequest,
    SignResponse,
)
from ..protocol.publickey import PublicKey
from ..protocol.wire import ProtocolError
from . import keyfiles
from .client import AgentError, AgentUnavailable, Client
from .options import fail, parse

if TYPE_CHECKING:
    from ..protocol.privatekey import NamedPrivateKey

_USAGE = """\
usage: kagent-add [-CcDdKkLlqvXx] [-E fingerprint_hash] [-H hostkey_file]
                  [-h destination_constraint] [-S provider] [-t life]
                  [file ...]
       kagent-add -s pkcs11 [-Cv] [certificate ...]
       kagent-add -e pkcs11
       kagent-add -T pubkey ...
"""
_LETTERS = "vkKlLNCcdDTxXE:e:h:H:M:m:Qqs:S:t:"
_NOT_YET = "cCehHkKNQsStxX"
_FATAL = 255  # OpenSSH's exit code for a command line that makes no sense

_DEFAULT_FILES = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
_HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")


def main() -> int:
    """The console script; its exit code."""
    confine.forbid_inspection()
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        return _main(_Options.parse(sys.argv[1:]))
    except KeyboardInterrupt:
        # As a program without a handler, but with the terminal's echo back.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 1


@dataclass(frozen=True)
class _Options:
    action: str  # the letter of what to do; "" is to add
    quiet: bool
    verbose: bool
    hash_name: str
    files: list[str]

    @classmethod
    def parse(cls, arguments: list[str]) -> _Options:
        given, files = parse(arguments, _LETTERS, _USAGE)
        letters = [option[1] for option, _ in given]
        listing = [letter for letter in letters if letter in "lL"]
        if len(listing) > 1:
            fail(f"-{listing[0]} flag already specified\r", _FATAL)
        if listing and "D" in letters:
            fail("Invalid combination of actions\r", _FATAL)
        for letter in letters:
            if letter in _NOT_YET:
                fail(f"kagent-add: -{letter} is not supported yet; nothing was done")
        hash_name = "sha256"
        for option, value in given:
            if option == "-E":
                hash_name = value.lower()
                if hash_name not in _HASHES:
                    fail(f'Invalid hash algorithm "{value}"\r', _FATAL)
        # Where several are given, ssh-add looks for them in this order.
        action = next((letter for letter in "lLDTd" if letter in letters), "")
        return cls(action, "q" in letters, "v" in letters, hash_name, files)


def _main(options: _Options) -> int:
    try:
        with Client() as client:
            return int(not _Command(client, options).run())
    except AgentUnavailable as error:
        if str(error):
            fail(f"Error connecting to agent: {error}", 2)
        fail("Could not open a connection to your authentication agent.", 2)


class _Command:
    """One run.  Methods return whether all went well."""

    def __init__(self, client: Client, options: _Options) -> None:
        self._client = client
        self._options = options
        self._passphrase = b""  # the last that was right: the next key may have it too

    def run(self) -> bool:
        options = self._options
        match options.action:
            case "l":
                return self._list(self._fingerprint_line)
            case "L":
                return self._list(PublicKey.line)
            case "D":
                return self._remove_all()
            case "T":
                if not options.files:
                    fail("no keys to test\r", _FATAL)
                return all([self._test(name) for name in options.files])
            case "d":
                return self._each(self._remove)
        return self._each(self._add)

    def _each(self, do: Callable[[str], bool]) -> bool:
        names = self._options.files
        if not names:
            home = pwd.getpwuid(os.getuid()).pw_dir
            paths = [f"{home}/.ssh/{name}" for name in _DEFAULT_FILES]
            names = [path for path in paths if os.path.exists(path)]
        return bool(names) and all([do(name) for name in names])

    def _list(self, shown: Callable[[PublicKey], str]) -> bool:
        try:
            answer = self._client.request(RequestIdentities(), IdentitiesAnswer)
        except AgentError as error:
            self._tell(f"error fetching identities: {error}")
            return False
        if not answer.identities:
            print("The agent has no identities.")
            return False
        for identity in answer.identities:
            try:
                key = PublicKey.parse(identity.blob)
            except ProtocolError:
                continue  # a type that this version doesn't know
            if self._options.action == "l":
                print(f"{shown(key)} {identity.comment} ({key.kind})")
            else:
                print(f"{shown(key)} {identity.comment}")
        return True

    def _fingerprint_line(self, key: PublicKey) -> str:
        return f"{key.bits} {key.fingerprint(self._options.hash_name)}"

    def _remove_all(self) -> bool:
        try:
            self._client.do(RemoveAllIdentities())
        except AgentError:
            self._tell("Failed to remove all identities.")
            return False
        try:
            self._client.do(RemoveAllRsaIdentities())  # keys of the first ssh, for old agents
        except AgentError:
            pass
        self._done("All identities removed.")
        return True

    def _remove(self, name: str) -> bool:
        if name == "-":
            text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
            keys = keyfiles.public_lines(text)
            return any([self._remove_one(key, comment, "(stdin)") for key, comment in keys])
        try:
            key, comment = keyfiles.public_key(name)
        except keyfiles.Unreadable as error:
            print(f"Bad key file {name}: {error}")
            return False
        return self._remove_one(key, comment, name)

    def _remove_one(self, key: PublicKey, comment: str | None, name: str) -> bool:
        try:
            self._client.do(RemoveIdentity(key.blob))
        except AgentError as error:
            self._tell(f'Could not remove identity "{name}": {error}')
            return False
        self._done(f"Identity removed: {name} {key.kind} ({comment or 'no comment'})")
        return True

    def _test(self, name: str) -> bool:
        from ..verify import BadSignature, verify

        try:
            key, _ = keyfiles.public_key(name)
        except keyfiles.Unreadable as error:
            self._tell(f"Couldn't read public key {name}: {error}\r")
            return False
        flags = SignFlags.RSA_SHA2_256 if key.plain_type == "ssh-rsa" else SignFlags(0)
        data = os.urandom(1024)
        try:
            answer = self._client.request(SignRequest(key.blob, data, flags), SignResponse)
        except AgentError as error:
            self._tell(f"Agent signature failed for {name}: {error}\r")
            self._explain()
            return False
        try:
            algorithm = verify(key, answer.signature, data)
        except BadSignature as error:
            self._tell(f"Signature verification failed for {name}: {error}\r")
            return False
        self._debug(f"{name}: a good {algorithm} signature")
        return True

    def _add(self, name: str) -> bool:
        try:
            data = keyfiles.private_bytes(name)
        except keyfiles.TooOpen as error:
            sys.stderr.write(str(error))
            return False
        except OSError as error:
            self._tell(f"{name}: {error.strerror}")
            return False
        except keyfiles.Unreadable as error:
            self._tell(f'Error loading key "{name}": {error}')
            return False
        name = "(stdin)" if name == "-" else name
        found = self._decrypt(data, name)
        if found is None:
            return False
        key, comment = found
        comment = comment or name
        try:
            self._client.do(AddIdentity(key, comment))
        except AgentError as error:
            self._tell(f'Could not add identity "{name}": {error}')
            self._explain()
            return False
        self._done(f"Identity added: {name} ({comment})")
        if self._options.verbose:
            self._debug(self._client.explanation() or "another agent than kagent holds it")
        return True

    def _decrypt(self, data: bytes, name: str) -> tuple[NamedPrivateKey, str] | None:
        from ..keyfile import KeyFileError, WrongPassphrase
        from ..keyfile import parse as parse_key
        from . import prompt

        question = "Enter passphrase for"
        attempts: Sequence[bytes] = [b"", self._passphrase] if self._passphrase else [b""]
        try:
            while True:
                for self._passphrase in attempts:
                    try:
                        return parse_key(data, self._passphrase)
                    except WrongPassphrase:
                        continue
                answer = prompt.passphrase(f"{question} {name}: ")
                if not answer:
                    return None
                attempts = [answer]
                question = "Bad passphrase, try again for"
        except KeyFileError as error:
            self._tell(f'Error loading key "{name}": {error}')
            return None

    def _explain(self) -> None:
        reason = self._client.explanation()
        if reason:
            self._tell(f"kagent: {printable(reason)}")

    def _done(self, text: str) -> None:
        if not self._options.quiet:
            self._tell(text)

    def _debug(self, text: str) -> None:
        if self._options.verbose:
            self._tell(f"debug1: {printable(text)}\r")

    def _tell(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
