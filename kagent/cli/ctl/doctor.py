"""Checks all that kagent needs.  Exits with 0 if it can work here, else with 1."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from ... import desktop
from ...configuration import settings, toml
from ...configuration.identities import Entry, Identities
from ...confine import profiles
from ...confine.seccomp import CannotConfine
from ...custody import kernel
from ...custody.configured import Configuration, files
from ...keyctl import (
    PROCESS_KEYRING,
    KernelKeyError,
    Keyring,
    KeyServiceBlocked,
    Quota,
    QuotaExceeded,
    session_keyring,
    syscalls,
)
from ...protocol.messages import Shown
from ...protocol.wire import ProtocolError
from ...provision.check import not_routed
from ...provision.policy import POLICY_FILE
from ...text import printable
from ..add import keyfiles
from ..agent import why_not_started
from ..client import AgentError, AgentUnavailable, Client
from .asking import obstacle
from .units import SOCKET, own_units, packaged

_PARSER = "pkcs8_key_parser"
# What the kernel must have been built with; the parser has a check of its own.
_NEEDED = (
    "CONFIG_KEYS",
    "CONFIG_ASYMMETRIC_KEY_TYPE",
    "CONFIG_ASYMMETRIC_PUBLIC_KEY_SUBTYPE",
    "CONFIG_CRYPTO_RSA",
)
_PARSER_OPTION = "CONFIG_PKCS8_PRIVATE_KEY_PARSER"
_OTHER_KERNEL = "boot your distribution's kernel; Debian: sudo apt-get install linux-image-amd64"
_LOAD_PARSER = (
    f"sudo sh -c 'modprobe {_PARSER} && echo {_PARSER} > /etc/modules-load.d/kagent.conf'"
)
_RAISE_QUOTA = (
    "printf 'kernel.keys.maxkeys = 2000\\nkernel.keys.maxbytes = 200000\\n' | "
    "sudo tee /etc/sysctl.d/kagent.conf && sudo sysctl -p /etc/sysctl.d/kagent.conf"
)
_SEALED = "so RSA keys are sealed like all others"
_CHECK = "kagentctl check, which tells each with its line"
_NEW_SESSION = "keyctl session - kagent $SHELL, or kagent --keyring user, persistent or private"
_UNBLOCK = "allow add_key, keyctl and request_key in the container's seccomp profile"
_INSTALL_AS_ROOT = "sudo python3 -m venv /opt/kagent && sudo /opt/kagent/bin/pip install ."
# What processes that see private keys run, besides Python.
_RUN = ("kagent", "cryptography", "_cffi_backend", "trio")
_REQUEST_KEY = Path("/sbin/request-key")


class Verdict(StrEnum):
    """How a check ended; only a failure means that kagent can't work."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """What a check has found, `told` in words; `mend` is the command that helps.  As in --json."""

    verdict: Verdict
    told: str
    mend: str = ""


def _ok(text: str) -> Finding:
    return Finding(Verdict.OK, text)


def _warning(text: str, mend: str = "") -> Finding:
    return Finding(Verdict.WARNING, text, mend)


def _failure(text: str, mend: str) -> Finding:
    return Finding(Verdict.FAILURE, text, mend)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--json", dest="as_json", action="store_true", help="for programs")


def run(*, as_json: bool) -> int:
    """Print every finding; the exit code, 0 if there is no failure."""
    findings = {name: check() for name, check in _CHECKS.items()}
    if as_json:
        print(json.dumps({name: asdict(finding) for name, finding in findings.items()}, indent=2))
    else:
        for name, finding in findings.items():
            print(f"{_coloured(finding.verdict)}  {name}: {printable(finding.told)}")
            if finding.mend:
                print(f"         to mend it: {printable(finding.mend)}")
    return int(any(finding.verdict is Verdict.FAILURE for finding in findings.values()))


def _coloured(verdict: Verdict) -> str:
    text = f"{verdict:7}"
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    colour = {Verdict.OK: 32, Verdict.WARNING: 33, Verdict.FAILURE: 31}[verdict]
    return f"\033[{colour}m{text}\033[0m"


def _configuration() -> dict[str, str] | None:
    """The options that this kernel was built with; None if it doesn't tell."""
    try:
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    except OSError:
        try:
            text = Path(f"/boot/config-{os.uname().release}").read_text()
        except OSError:
            return None
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


def _kernel() -> Finding:
    release = os.uname().release
    options = _configuration()
    if options is None:
        return _ok(f"Linux {release}; it doesn't publish its configuration")
    missing = [name for name in _NEEDED if options.get(name) not in ("y", "m")]
    if missing:
        return _failure(f"Linux {release} was built without {', '.join(missing)}", _OTHER_KERNEL)
    return _ok(f"Linux {release}, built with all that is needed")


def _key_service() -> Finding:
    try:
        # A write: a filter may let a look through.
        Keyring.special(PROCESS_KEYRING, create=True).add("user", "kagent:doctor", b"probe")
    except KernelKeyError as error:
        return _failure(str(error), _mend(error))
    return _ok("keys can be added")


def _mend(error: KernelKeyError) -> str:
    match error:
        case QuotaExceeded():
            return _RAISE_QUOTA
        case KeyServiceBlocked():
            return _UNBLOCK
    return _NEW_SESSION


def _parser() -> Finding:
    from ...private import pkcs8

    try:
        pkcs8.probe(Keyring.special(PROCESS_KEYRING, create=True))
    except pkcs8.ParserMissing:
        return _parser_missing()
    except pkcs8.CannotSign as error:
        return _warning(f"the kernel can't sign, {_SEALED}: {error}", _OTHER_KERNEL)
    except KernelKeyError as error:
        return _failure(f"no key could be loaded: {error}", _mend(error))
    return _ok("a throwaway RSA key was loaded, and the kernel signed with it")


def _parser_missing() -> Finding:
    options = _configuration() or {}
    modules = Path("/lib/modules", os.uname().release)
    names = (modules / "modules.dep", modules / "modules.builtin")
    available = any(f"/{_PARSER}.ko" in _text(name) for name in names)
    if available:
        return _warning(f"{_PARSER} is there, but not loaded, {_SEALED}", _LOAD_PARSER)
    if options.get(_PARSER_OPTION) == "m":
        return _warning(
            f"the kernel's module {_PARSER} isn't installed, {_SEALED}",
            f"install the modules of Linux {os.uname().release}; then: {_LOAD_PARSER}",
        )
    return _warning(f"the kernel has no {_PARSER}, {_SEALED}", _OTHER_KERNEL)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _quota() -> Finding:
    uid = os.getuid()
    quota, room = Quota.of(uid), kernel.room(uid)
    if quota is None:
        return _ok(f"uid {uid} has no keys yet")
    text = (
        f"{quota.keys} of {quota.most_keys} keys and {quota.size} of {quota.most_size} bytes are "
        f"used by uid {uid}: room for about {room} more keys that the kernel signs with; what is "
        "sealed needs none"
    )
    if quota.used >= 1:
        return _failure(text, _RAISE_QUOTA)
    return _ok(text) if room else _warning(text, _RAISE_QUOTA)


def _session() -> Finding:
    try:
        keyring = session_keyring()
        about = keyring.describe()
    except KeyServiceBlocked as error:
        return _failure(str(error), _UNBLOCK)
    except KernelKeyError as error:
        return _failure(str(error), _NEW_SESSION)
    name = about.description
    if about.uid != os.getuid():
        return _warning(
            f"{name} ({keyring.serial:#x}) isn't this login's own: it is of uid {about.uid}, whose "
            "programs can sign with the keys in it",
            _NEW_SESSION,
        )
    if name.startswith("_uid_ses."):
        return _warning(
            f"this login has no session keyring of its own: keys go to {name}, which all logins of "
            "this user share; they don't end at logout, but when they are removed or the machine "
            "is rebooted",
            'echo "session optional pam_keyinit.so force revoke" | sudo tee -a /etc/pam.d/sshd',
        )
    return _ok(f"{name} ({keyring.serial:#x}) is this login's own: its keys end with it")


def _seccomp() -> Finding:
    mode = re.search(r"^Seccomp:\s+(\d)", _text(Path("/proc/self/status")), re.MULTILINE)
    if mode is None or mode[1] == "0":
        return _ok("no filter from outside")
    blocked = []
    for name, attempt in _KEY_CALLS.items():
        try:
            attempt(Keyring(PROCESS_KEYRING))
        except KeyServiceBlocked:
            blocked.append(name)
        except KernelKeyError:
            pass
    if blocked:
        return _failure(f"a filter from outside blocks {', '.join(blocked)}", _UNBLOCK)
    return _ok("a filter is on, and lets the key syscalls through")


# With what the kernel itself refuses otherwise.
_KEY_CALLS: dict[str, Callable[[Keyring], object]] = {
    "add_key": lambda keyring: keyring.add("kagent:none", "kagent:doctor", b"probe"),
    "keyctl": Keyring.describe,
    "request_key": lambda keyring: syscalls.request_key(
        "kagent:none", "kagent:doctor", None, keyring.serial
    ),
}


def _confinement() -> Finding:
    try:
        confinement = profiles.sign_worker(0, 0)
    except CannotConfine as error:
        return _failure(error.reason, error.mend)
    child = os.fork()
    if child == 0:
        try:
            confinement.install()
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        return _failure("the kernel takes no system call filters", _OTHER_KERNEL)
    return _ok("a process could be confined to a few system calls")


def _agent() -> Finding:
    path = os.environ.get("SSH_AUTH_SOCK")
    start = 'eval "$(kagent -s)"'
    if not path:
        return _warning("not set: ssh knows of no agent", start)
    try:
        with Client() as client:
            explanation = client.explanation()
    except AgentUnavailable as error:
        return _warning(f"{path}: nobody answers ({error})", start)
    if explanation is None:
        return _warning(f"{path}: another agent answers, not kagent", start)
    return _ok(f"{path}: kagent answers")


def _provisioning() -> Finding:
    configuration = Configuration.read(*files())
    if configuration.faults:
        return _warning("; ".join(configuration.faults), "mend or remove these lines")
    if not configuration.identities:
        return _ok("no identity is configured to be fetched when it is needed")
    if not _REQUEST_KEY.exists():
        return _warning(f"{_REQUEST_KEY} is missing", "on Debian: sudo apt-get install keyutils")
    for one in configuration.identities:
        if fault := not_routed(one.description):
            return _warning(fault, "see kagent-provision(8) for the line that belongs there")
    if not POLICY_FILE.exists():
        return _warning(f"nobody may have any key: no {POLICY_FILE}", "see kagent-provision(8)")
    text = "; ".join(f"{one.comment}, {one.why}{_left(one)}" for one in _shown(configuration))
    finding = _warning if "; refused" in text else _ok
    return finding(text or f"{len(configuration.identities)} configured; no kagent to ask further")


def _notifications() -> Finding:
    read = Identities.read()
    if {read.notify, *(one.notify for one in read.entries)} <= {"never", ""}:
        return _ok("none is wanted: notify in kagent.toml")
    found, address = desktop.sender(), desktop.bus()
    if not found:
        return _warning("no program sends them", "on Debian: sudo apt-get install libnotify-bin")
    if not address:
        return _warning("there is no session bus", "set DBUS_SESSION_BUS_ADDRESS, or log in anew")
    return _ok(f"sent by {found}, over {address}")


def _questions() -> Finding:
    """Whether passphrases of keys that are fetched can be asked for."""
    if not any(map(_has_a_question, Identities.read().entries)):
        return _ok("kagent.toml has none asked")
    if unable := obstacle():
        why, step = unable
        told = f"kagent.toml has passphrases or confirmations asked for, and {why}"
        return _warning(told, f"{step.command}, which {step.why}")
    return _ok("they can be asked")


def _has_a_question(entry: Entry) -> bool:
    """Whether using the key asks the user something, as far as that can be told without it."""
    if entry.confirm:
        return True
    if entry.passphrase or not entry.has_source:
        return False
    from ...private.keyfile import KeyFileError, is_encrypted

    try:
        return not entry.file or is_encrypted(keyfiles.private_bytes(entry.file))
    except (OSError, KeyFileError, keyfiles.TooOpen, keyfiles.Unreadable):
        return True  # check tells what is wrong with it


def _left(shown: Shown) -> str:
    left = shown.expires - int(time.time())
    return f", {left}s left" if left > 0 else ""


def _configured() -> Finding:
    read = Identities.read()
    if faults := settings.configured()[1]:
        return _failure(f"kagent doesn't start: {_first(faults)}", _CHECK)
    if refused := why_not_started():
        return _failure(f"kagent doesn't start: {refused}", _CHECK)
    if read.faults:
        return _warning(_first(read.faults), _CHECK)
    sources = sum(entry.has_source for entry in read.entries)
    return _ok(f"{sources} keys are fetched when they are needed, as kagent.toml says")


def _first(faults: Sequence[toml.Fault]) -> str:
    return str(faults[0]) + (f", and {len(faults) - 1} more" if faults[1:] else "")


def _shown(configuration: Configuration) -> list[Shown]:
    """What the agent says of the identities that are configured."""
    try:
        with Client() as client:
            shown = client.shown()
    except (AgentError, AgentUnavailable, ProtocolError):
        return []
    return [one for one in shown if configuration.find(one.blob)]


def _files() -> Finding:
    """Whether others of this user's programs can change what kagent's processes run."""
    uid = os.getuid()
    if uid == 0:
        return _ok("only root can change what kagent's processes run")
    modules = (find_spec(name) for name in _RUN)
    files = [sys.executable, *(one.origin for one in modules if one and one.origin)]
    # Each as it is named and as it is found: who can change a link changes where it leads.
    paths = [path for file in files for path in (Path(file), Path(file).resolve())]
    for path in paths:
        for place in (path, *path.parents):
            about = place.stat()
            others = not about.st_mode & stat.S_ISVTX and os.access(place, os.W_OK)
            if about.st_uid == uid or others:
                return _warning(
                    f"every program of yours can change {path}, and so what kagent's processes run",
                    _INSTALL_AS_ROOT,
                )
    return _ok("you can't change what kagent's processes run")


def _units() -> Finding:
    """Which of kagent's units count."""
    try:
        Path.home()
    except RuntimeError:
        return _ok("this user has no home, and so none")
    own = [unit for unit in own_units() if unit.name == SOCKET]
    if not packaged():
        told = f"{own[0]} is your own" if own else "none of yours; kagentctl install writes them"
        return _ok(told)
    if own:
        told = f"{own[0]} counts instead of the system's package's, and starts another kagent"
        return _warning(told, "kagentctl uninstall && kagentctl install")
    return _ok("the system's package has them, for all users")


def _openssh() -> Finding:
    try:
        output = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.strip()
    except OSError:
        return _warning("ssh is not installed", "on Debian: apt-get install openssh-client")
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", output)
    if version is None:
        return _warning(f"not OpenSSH: {output}")
    if (int(version[1]), int(version[2])) < (7, 2):
        return _warning(f"{output}: too old for rsa-sha2 signatures", "upgrade openssh-client")
    return _ok(output)


def _post_quantum() -> Finding:
    from ...private.composite import PrivateKey, Unsupported

    try:
        PrivateKey.from_seeds(os.urandom(64))
    except Unsupported as error:
        if sys.prefix == sys.base_prefix:  # the system's, in which pip has no say
            return _warning(str(error), "pipx install, in a checkout, has libraries of its own")
        return _warning(str(error), f"{sys.executable} -m pip install --upgrade cryptography")
    return _ok("ssh-mldsa44-ed25519 keys can be held")


_CHECKS: dict[str, Callable[[], Finding]] = {
    "kernel": _kernel,
    "key service": _key_service,
    "parser": _parser,
    "quota": _quota,
    "session keyring": _session,
    "seccomp": _seccomp,
    "confinement": _confinement,
    "SSH_AUTH_SOCK": _agent,
    "provisioning": _provisioning,
    "notifications": _notifications,
    "configuration": _configured,
    "questions": _questions,
    "post-quantum keys": _post_quantum,
    "OpenSSH": _openssh,
    "files": _files,
    "units": _units,
}
