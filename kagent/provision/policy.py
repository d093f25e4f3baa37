"""Which key may be had by whom, and from where: /etc/kagent/provision.toml."""

from __future__ import annotations

import grp
import os
import pwd
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..openssh.times import seconds
from .backends import Backend, Command, Credential, File, NotRootsOwn, check_only_root_writes

POLICY_FILE = Path("/etc/kagent/provision.toml")

_DEFAULT_TIMEOUT = 10
_LONGEST_TIMEOUT = 50  # twice that, for key and passphrase, is what the agent waits for


class PolicyError(ValueError):
    """The policy isn't one: nothing may be had until it is mended."""


@dataclass(frozen=True)
class Requester:
    """Who asks: a user, and the program's file, "" if that can't be told."""

    uid: int
    program: str

    @property
    def name(self) -> str:
        """The user's name, or number."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def groups(self) -> set[str]:
        """The groups that the user is in."""
        try:
            user = pwd.getpwuid(self.uid)
        except KeyError:
            return set()
        return set(map(_group_name, os.getgrouplist(user.pw_name, user.pw_gid)))


@dataclass(frozen=True)
class Rule:
    """One rule.  Times are in seconds; without `programs` any will do."""

    number: int
    key: str
    users: tuple[str, ...]
    groups: tuple[str, ...]
    programs: tuple[str, ...]
    lifetime: int
    timeout: int
    backend: Backend
    passphrase: Backend | None

    def permits(self, requester: Requester) -> bool:
        """Whether it is for that user and program."""
        user = requester.name in self.users or bool(requester.groups.intersection(self.groups))
        return user and (not self.programs or requester.program in self.programs)


@dataclass(frozen=True)
class Policy:
    """The rules, in their order."""

    rules: tuple[Rule, ...]

    @classmethod
    def read(cls, file: Path) -> Policy:
        """Raises PolicyError, also for a file that others than root could have written."""
        try:
            check_only_root_writes(file)
            told = tomllib.loads(file.read_text())
        except FileNotFoundError as error:
            raise PolicyError(f"there is no {file}, so nobody may have any key") from error
        except (OSError, NotRootsOwn) as error:
            raise PolicyError(str(error)) from error
        except ValueError as error:
            raise PolicyError(f"{file}: {error}") from error
        except RecursionError as error:
            raise PolicyError(f"{file}: values in values, too many to be read") from error
        if unknown := set(told) - {"rule"}:
            raise PolicyError(f"{file}: only [[rule]] can be here, not {_listed(unknown)}")
        rules = told.get("rule", [])
        if not isinstance(rules, list) or not all(isinstance(one, dict) for one in rules):
            raise PolicyError(f"{file}: rules are written as [[rule]]")
        try:
            return cls(tuple(_rule(number, one) for number, one in enumerate(rules, 1)))
        except PolicyError as error:
            raise PolicyError(f"{file}: {error}") from error

    def rule_for(self, key: str, requester: Requester) -> Rule | None:
        """The first one that lets `requester` have that key."""
        return next((one for one in self.rules if one.key == key and one.permits(requester)), None)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _rule(number: int, told: Mapping[str, Any]) -> Rule:
    try:
        if unknown := set(told) - set(_SETTINGS):
            raise PolicyError(f"unknown setting {_listed(unknown)}; there are {_listed(_SETTINGS)}")
        values = {name: read(told[name]) for name, read in _SETTINGS.items() if name in told}
        for name in ("key", "lifetime", "from"):
            if name not in values:
                raise PolicyError(f"{name} is missing")
        if not values.get("users") and not values.get("groups"):
            raise PolicyError("users or groups must say who may have the key")
        if values.get("timeout", 1) > _LONGEST_TIMEOUT:
            raise PolicyError(f"timeout: at most {_LONGEST_TIMEOUT} seconds")
    except PolicyError as error:
        raise PolicyError(f"rule {number}: {error}") from error
    return Rule(
        number,
        values["key"],
        values.get("users", ()),
        values.get("groups", ()),
        values.get("programs", ()),
        values["lifetime"],
        values.get("timeout", _DEFAULT_TIMEOUT),
        values["from"],
        values.get("passphrase"),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise PolicyError(f"expected a text in quotes, not {value!r}")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise PolicyError(f"expected a list of texts, not {value!r}")
    return tuple(map(_text, value))


def _path(value: object) -> str:
    path = _text(value)
    if not path.startswith("/"):
        raise PolicyError(f"expected a path from the root, not {path!r}")
    return path


def _paths(value: object) -> tuple[str, ...]:
    return tuple(map(_path, _texts(value)))


def _command(value: object) -> tuple[str, ...]:
    words = _texts(value)
    return (_path(words[0]), *words[1:])


def _span(value: object) -> int:
    try:
        span = seconds(_text(value))
    except ValueError as error:
        raise PolicyError(f"expected a time as in '1h' or '90s', not {value!r}") from error
    if span < 1:
        raise PolicyError("no time at all")  # for the kernel, 0 would mean no end
    return span


_BACKENDS: Mapping[str, Callable[[object], Backend]] = {
    File.setting: lambda value: File(_path(value)),
    Credential.setting: lambda value: Credential(_path(value)),
    Command.setting: lambda value: Command(_command(value)),
}


def _backend(value: object) -> Backend:
    if not isinstance(value, dict) or len(value) != 1 or not set(value) <= set(_BACKENDS):
        raise PolicyError(f"expected {{ X = … }}, where X is one of {_listed(_BACKENDS)}")
    [(name, setting)] = value.items()
    return _BACKENDS[name](setting)


def _named(name: str, read: Callable[[object], Any]) -> Callable[[object], Any]:
    """`read`, with errors that say which setting it is."""

    def named(value: object) -> Any:
        try:
            return read(value)
        except PolicyError as error:
            raise PolicyError(f"{name}: {error}") from error

    return named


_SETTINGS: Mapping[str, Callable[[object], Any]] = {
    name: _named(name, read)
    for name, read in {
        "key": _text,
        "users": _texts,
        "groups": _texts,
        "programs": _paths,
        "lifetime": _span,
        "timeout": _span,
        "from": _backend,
        "passphrase": _backend,
    }.items()
}


def _listed(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(names))
