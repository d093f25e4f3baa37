"""The keys in the kernel, with keyctl as witness."""

from __future__ import annotations

import os
import re
import signal

from tests.kernel import keys
from tests.support.programs import Agent, Person, agent, wait_until


def in_kernel(person: Person) -> list[str]:
    """kagent's keys of that person, as /proc/keys lists them: type and description."""
    listed = person.run("cat", "/proc/keys").stdout
    pattern = r"(\w+) +(kagent:\S+?)(?:: .*)?$"
    return sorted(f"{kind} {name}" for kind, name in re.findall(pattern, listed, re.MULTILINE))


def test_a_keys_life(kagent: Agent) -> None:
    person = kagent.person
    key = person.file("key", keys.rsa(2048))
    fingerprint = person.run("ssh-keygen", "-l", "-f", key).stdout.split()[1]
    kagent.run("ssh-add", key)
    name = f"kagent:{fingerprint}"
    assert in_kernel(person) == [f"asymmetri {name}", f"big_key {name}", "keyring kagent:session"]
    shown = person.run("keyctl", "show", "@s").stdout
    assert re.search(rf"keyring: kagent:session\n.*(asymmetric|big_key): {re.escape(name)}", shown)
    kagent.run("ssh-add", key)  # again: it is replaced, not doubled
    wait_until(lambda: len(in_kernel(person)) == 3)
    kagent.run("ssh-add", "-D")
    wait_until(lambda: in_kernel(person) == ["keyring kagent:session"])


def test_nothing_is_left_of_a_refused_key(person: Person) -> None:
    key = person.home / "key"
    person.run("ssh-keygen", "-q", "-N", "", "-t", "rsa", "-b", "2304", "-f", key)
    with agent(person, "kagent", "--custody=kernel") as kagent:
        assert kagent.run("ssh-add", key, check=False).returncode == 1
        assert "1024, 1536, 2048, 3072 and 4096 bits" in kagent.logged()
    wait_until(lambda: not [name for name in in_kernel(person) if "keyring" not in name])


def test_keys_outlive_the_agent(person: Person) -> None:
    """kill -9 and a new agent: the same keys, in the same order, that sign."""
    with agent(person) as first:
        for number, bits in enumerate((3072, 2048)):
            first.run("ssh-add", person.file(f"key{number}", keys.rsa(bits)))
        listed = first.run("ssh-add", "-L").stdout
        os.kill(first.keeper, signal.SIGKILL)
    with agent(person) as second:
        assert second.run("ssh-add", "-L").stdout == listed
        for number, line in enumerate(listed.splitlines(keepends=True)):
            second.run("ssh-add", "-T", person.file(f"{number}.pub", line))


def test_keys_end_with_the_session(person: Person) -> None:
    key = person.file("key", keys.rsa(2048))
    script = f'eval "$(kagent -s)" && ssh-add {key} && ssh-add -l && cat /proc/keys && kagent -k'
    told = person.run("keyctl", "session", "-", "sh", "-c", script).stdout
    assert "(RSA)" in told
    assert "kagent:SHA256" in told
    wait_until(lambda: in_kernel(person) == [])


def test_removed_with_keyctl(kagent: Agent) -> None:
    """What plain keyctl takes away, the agent has no longer."""
    person = kagent.person
    for number in (0, 1):
        kagent.run("ssh-add", person.file(f"key{number}", keys.rsa(2048, number)))
    first = kagent.run("ssh-add", "-l").stdout.split()[1]
    kagent.run("keyctl", "purge", "-s", "asymmetric", f"kagent:{first}")
    listed = kagent.run("ssh-add", "-l").stdout
    assert first not in listed
    assert len(listed.splitlines()) == 1
