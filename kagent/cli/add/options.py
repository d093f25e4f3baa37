"""kagent-add's command line: ssh-add's, and two words of its own."""

from __future__ import annotations

import os

from ...protocol.constraints import (
    CUSTODIES,
    AssociatedCertificates,
    Confirm,
    ConfirmForwarded,
    Constraint,
    IdleLifetime,
    Lifetime,
    PermittedHop,
    RequireCustody,
    RestrictDestination,
    SkProvider,
)
from ..options import fail, one_of, parse
from .report import Report, fatal

_USAGE = """\
usage: kagent-add [-CcDdKkLlNPqvXx] [-E fingerprint_hash] [-H hostkey_file]
                  [-h destination_constraint] [-S provider] [-t life]
                  [--custody kernel | sealed] [--confirm-forwarded] [--idle life]
                  [file ...]
       kagent-add -s pkcs11 [-CckPqv] [-H hostkey_file]
                  [-h destination_constraint] [-t life]
                  [--confirm-forwarded] [--idle life] [certificate ...]
       kagent-add -e pkcs11
       kagent-add -T pubkey ...
       kagent-add -Q
"""
_LETTERS = "vkKlLNCcdDPTxXE:e:h:H:M:m:Qqs:S:t:"
_WORDS = ("custody=", "confirm-forwarded", "idle=")
_HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")

# What can be asked for, and which of it is done where more is: the first, as with ssh-add.
_ACTIONS = "xXlLDQTseKd"


class Options:
    """The command line, checked as ssh-add checks it.

    Ends the program where the line makes no sense.  -m and -M are taken and mean nothing, as
    with ssh-add since 10.0.
    """

    def __init__(self, arguments: list[str]) -> None:
        given, self.files = parse(arguments, _LETTERS, _USAGE, _WORDS)
        names = [option for option, _ in given]
        self.hash_name = "sha256"
        self.lifetime = 0  # seconds; 0 is without end
        self.idle = 0
        self.custody: str | None = None
        self.provider = os.environ.get("SSH_SK_PROVIDER", "internal")
        self.destinations: list[str] = []
        self.hostkey_files: list[str] = []  # ssh's own, if there is none
        seen = {"-l": "", "-x": ""}
        for option, value in given:
            match option:
                case "-l" | "-L" | "-x" | "-X":
                    kind = option.lower()
                    if seen[kind]:
                        fatal(f"{seen[kind]} flag already specified")
                    seen[kind] = option
                case "-E":
                    self.hash_name = _hash(value)
                case "-t":
                    self.lifetime = _lifetime(value)
                case "-S":
                    self.provider = value
                case "-h":
                    self.destinations.append(value)
                case "-H":
                    self.hostkey_files.append(value)
                case "--custody":
                    self.custody = _custody(value)
                case "--idle":
                    self.idle = _lifetime(value)
        if sum(map(bool, (*seen.values(), "-D" in names, "-Q" in names))) > 1:
            fatal("Invalid combination of actions")
        self.action = next((letter for letter in _ACTIONS if f"-{letter}" in names), "")
        # As with ssh-add, what removes counts wherever it stands; of several providers the last.
        self.token = next((value for name, value in reversed(given) if name in ("-s", "-e")), "")
        self.removing = "-e" in names or "-d" in names
        self.confirm = "-c" in names
        self.confirm_forwarded = "--confirm-forwarded" in names
        self.own = tuple(
            name for name in ("--custody", "--confirm-forwarded", "--idle") if name in names
        )
        self.keys_only = "-k" in names
        self.certificates_only = "-C" in names
        self.until_expiry = "-N" not in names
        self.asks_pin = "-P" not in names
        self.report = Report("-q" in names, min(names.count("-v"), 3))

    def constraints(
        self,
        lifetime: int,
        hops: tuple[PermittedHop, ...],
        *,
        provider: SkProvider | None = None,
        certificates: AssociatedCertificates | None = None,
    ) -> tuple[Constraint, ...]:
        """What keys are sent with: in ssh-add's order, and kagent's own behind them."""
        wanted = (
            Lifetime(lifetime) if lifetime else None,
            Confirm() if self.confirm else None,
            provider,
            RestrictDestination(hops) if hops else None,
            certificates,
            RequireCustody(self.custody) if self.custody is not None else None,
            ConfirmForwarded() if self.confirm_forwarded else None,
            IdleLifetime(self.idle) if self.idle else None,
        )
        return tuple(one for one in wanted if one is not None)


def _hash(name: str) -> str:
    if name.lower() not in _HASHES:
        fatal(f'Invalid hash algorithm "{name}"')
    return name.lower()


def _lifetime(text: str) -> int:
    from ...openssh.times import seconds

    try:
        return seconds(text)
    except ValueError:
        fail("Invalid lifetime")


def _custody(name: str) -> str:
    if name not in CUSTODIES:
        fail(f"kagent-add: --custody takes {one_of(CUSTODIES)}, not {name!r}")
    return name
