"""An own CA, and kagent.toml with commands that have it print certificates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .programs import Person

# Prints a certificate for a key, and writes into `runs` that it did: the key, and how many came.
_ISSUE = """\
#!/bin/sh
set -e
echo "$1" >>{home}/runs
serial=$(wc -l <{home}/runs)
folder=$(mktemp -d)
cp "{home}/$1.pub" $folder/key.pub
shift
ssh-keygen -q -s {home}/ca -z $serial "$@" $folder/key.pub
cat $folder/key-cert.pub
rm -r $folder
"""


@dataclass(frozen=True)
class Authority:
    """The CA of a person's, as files in the home."""

    person: Person

    @classmethod
    def of(cls, person: Person) -> Authority:
        """A new one."""
        person.key("ca")
        person.file("issue", _ISSUE.format(home=person.home), mode=0o700)
        person.file("runs", "")
        return cls(person)

    @property
    def public(self) -> str:
        """For sshd's TrustedUserCAKeys."""
        return str(self.person.home / "ca.pub")

    @property
    def runs(self) -> list[str]:
        """The keys for which a certificate was wanted, in that order."""
        return (self.person.home / "runs").read_text().split()

    def issuing(self, key: str, *options: str, life: str = "-5m:+1h") -> list[str]:
        """The words of such a command; `options` are ssh-keygen's."""
        names = [*options, "-I", f"id of {key}", "-n", self.person.name, "-V", life]
        return [str(self.person.home / "issue"), key, *names]

    def configure(self, *identities: dict[str, object], **general: object) -> Path:
        """Write a kagent.toml: `public` of an identity is the name of a key in the home."""
        folder = self.person.home / ".config/kagent"
        if not folder.exists():
            self.person.run("mkdir", "-p", folder)
        lines = [f"{name} = {_toml(value)}" for name, value in general.items()]
        for one in identities:
            lines.append("[[identity]]")
            about = {**one, "public": f"~/{one['public']}.pub"}
            lines += [f"{name} = {_toml(value)}" for name, value in about.items()]
        return self.person.file(".config/kagent/kagent.toml", "\n".join(lines) + "\n")


def shell(line: str) -> list[str]:
    """The words of a command that a shell runs."""
    return ["/bin/sh", "-c", line]


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
