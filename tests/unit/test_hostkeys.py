"""known_hosts files against what ssh-keygen -F finds in them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from kagent.openssh.hostkeys import Marker, keys_of, names_of
from kagent.protocol.publickey import parse_line


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three public keys as 'type base64 comment'."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("one", "two", "three"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name]
        subprocess.run(command, check=True)
    return [(folder / f"{name}.pub").read_text().strip() for name in ("one", "two", "three")]


def blob(key: str) -> bytes:
    return parse_line(key)[0].blob


def found_by_openssh(path: Path, host: str) -> list[int]:
    """The numbers of the lines that are about `host`."""
    command = ["ssh-keygen", "-F", host, "-f", path]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    return [int(number) for number in re.findall(r"^# Host .* found: line (\d+)", told, re.M)]


def hashed(path: Path) -> None:
    """Hash the names in a file."""
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)


LINES = """\
# a comment
plain {0}

Upper.example,10.0.0.1 {1}
\t*.example.com,!no.example.com  {2} # a comment
!*.example.org,*.org {0}
[port.example]:2222,[10.0.0.2]:22 {1}
plain {2}
h?st {0}
@cert-authority *.example.net {1}
@revoked plain {2}
@cert-authority\ttab.example\t{1}
@other odd.example {0}
@revoked @cert-authority odd.example {0}
truncated
truncated.example ssh-ed25519
short.example ssh-rsa AAAA
damaged.example ssh-ed25519 !!!!
star** {0}
"""
HOSTS = """\
plain
PLAIN
upper.example
Upper.example
10.0.0.1
10.0.0.2
a.example.com
no.example.com
A.EXAMPLE.COM
x.org
x.example.org
[port.example]:2222
port.example
[10.0.0.2]:22
host
hst
x.example.net
*.example.com
tab.example
odd.example
truncated
truncated.example
starry
st
nowhere
"""


def test_the_same_lines_as_ssh_keygen(keys: list[str], tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(LINES.format(*keys))
    for host in HOSTS.splitlines():
        ours = [line.number for line in keys_of(path.read_bytes(), host) if line.key]
        assert ours == found_by_openssh(path, host), host


def test_hashed_names(keys: list[str], tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("one,10.0.0.1 {}\n[two]:2222 {}\nThree {}\n".format(*keys))
    hashed(path)
    assert b"one" not in path.read_bytes().split(b"ssh-ed25519")[0]
    for host in ("one", "ONE", "10.0.0.1", "[two]:2222", "two", "Three", "three"):
        ours = [line.number for line in keys_of(path.read_bytes(), host)]
        assert ours == found_by_openssh(path, host), host
    for damaged in (b"|1|AAAA|BBBB", b"|1|x", b"|2|", b"|1|!!|!!"):
        assert not list(keys_of(damaged + b" " + keys[0].encode(), "one"))


def test_markers_and_damage_are_told(keys: list[str]) -> None:
    data = LINES.format(*keys).encode()
    told = [(line.number, line.marker) for line in keys_of(data, "plain")]
    assert told == [(2, Marker.NONE), (8, Marker.NONE), (11, Marker.REVOKED)]
    (authority,) = keys_of(data, "x.example.net")
    assert authority.marker is Marker.AUTHORITY
    (damaged,) = keys_of(data, "damaged.example")
    assert damaged.key is None


def test_the_names_of_a_key(keys: list[str], tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    one, two, three = keys
    path.write_text(f"secret {one}\n[other]:2222 {one}\nunrelated {two}\n")
    hashed(path)
    data = (
        path.read_bytes()
        + (
            f"git.example,10.0.0.1 {one}\n*.example.com,!no.example.com {one}\n"
            f"@cert-authority *.example.net {two}\n@revoked * {three}\nplain {three}\n"
        ).encode()
    )
    plain = ("git.example", "10.0.0.1")
    assert names_of(data, blob(one)) == plain
    candidates = ["secret", "[other]:2222", "unrelated", "a.example.com", "no.example.com", "x"]
    answered = {*plain, "secret", "[other]:2222", "a.example.com"}
    assert set(names_of(data, blob(one), candidates)) == answered
    assert names_of(data, blob(two), ["a.example.net", "unrelated"]) == ("unrelated",)
    assert names_of(data, blob(three), ["plain"]) == ()
