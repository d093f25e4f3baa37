"""A user's days with kagent, told in the booted machine, as root; the standard library only.

Each chapter starts from where the last one has left the machine; with the first that fails the
story ends.  Writes a report as pytest does.
"""

from __future__ import annotations

import pwd
import re
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

SSH = ["ssh", "-n", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "alice@localhost"]
PROGRAMS = "/home/alice/.venv/bin"
SERVICE_FILES = "/home/alice/.config/systemd/user"
SECONDS = 90

# A login that stays: with the last one, alice's systemd ends.
resident = subprocess.Popen(
    [*(word for word in SSH if word != "-n"), "cat"],
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
)


def login(command: str, *, check: bool = True) -> str:
    """What a command says in a login of its own."""
    done = subprocess.run([*SSH, command], capture_output=True, text=True, timeout=300)
    told = done.stdout + done.stderr
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{told}"
    return told


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"{true.__doc__ or true}"
        time.sleep(0.3)


def processes() -> dict[str, int]:
    """alice's processes, by name, that are kagent's."""
    return {name: pid for name, pid in all_processes().items() if name.startswith("kagent-")}


def all_processes() -> dict[str, int]:
    """alice's processes, by name."""
    uid = pwd.getpwnam("alice").pw_uid
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if re.search(rf"^Uid:\t{uid}\t", (folder / "status").read_text(), re.MULTILINE):
                found[(folder / "comm").read_text().strip()] = int(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def keys() -> list[str]:
    """alice's lines of /proc/keys that are kagent's."""
    told = subprocess.run(
        ["setpriv", "--reuid=alice", "--regid=alice", "--clear-groups", "cat", "/proc/keys"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line for line in told.splitlines() if "kagent:" in line]


def signs() -> None:
    login("ssh-add -T key.pub")


def installed_from_the_wheel() -> None:
    # Without a pip of its own: unpacking one takes an emulated machine most of a minute.
    login("python3 -m venv --without-pip .venv")
    pip = ".venv/bin/python /usr/share/python-wheels/pip-*.whl/pip"
    wheels = "--no-index --find-links /run/machine/wheels"
    login(f"{pip} install -q --no-compile {wheels} kagent")
    told = login(f"{PROGRAMS}/kagentctl install")
    assert "enabled and started kagent.socket" in told, told
    # A minute is long for a test.
    login(f"sed -i s/60s/4s/ {SERVICE_FILES}/kagent.service && systemctl --user daemon-reload")
    assert not processes()


def logins_and_services_find_the_agent() -> None:
    path = "/run/user/1000/kagent/agent.sock"
    assert login("echo $SSH_AUTH_SOCK") == f"{path}\n"
    assert login("systemd-run --user --pipe -q sh -c 'echo $SSH_AUTH_SOCK'") == f"{path}\n"


def a_key_is_added_in_one_login_and_used_in_another() -> None:
    login("ssh-keygen -q -t rsa -b 2048 -N '' -f key && ssh-add -q key && rm key")
    assert "RSA" in login("ssh-add -l")
    signs()
    assert "kagent:user" in login("keyctl show @u")
    assert any("asymmetri" in line for line in keys()), keys()


def it_ends_when_idle_and_comes_back() -> None:
    wait_until(lambda: not processes())
    assert "starts it with the next request" in login(f"{PROGRAMS}/kagentctl status")
    assert not processes()
    signs()
    assert sorted(processes()) == ["kagent-front", "kagent-keeper"]
    assert "1 kernel" in login(f"{PROGRAMS}/kagentctl status")


def killed(victim: str) -> Callable[[], None]:
    def chapter() -> None:
        signs()
        pid = processes()[victim]
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        wait_until(lambda: processes().get(victim) != pid)
        signs()

    chapter.__name__ = f"{victim}_is_killed".replace("-", "_")
    return chapter


def the_service_is_stopped() -> None:
    signs()
    login("systemctl --user stop kagent.service")
    assert not processes()
    signs()


def the_journal_tells() -> None:
    told = subprocess.run(
        ["journalctl", "--identifier=kagent", "--output=cat"], capture_output=True, text=True
    ).stdout
    assert "result=signed" in told, told


def logout_ends_the_keys() -> None:
    """Of the last login; until then there was one all the time."""
    assert keys()
    resident.kill()
    resident.wait()
    wait_until(lambda: not all_processes())
    assert not keys(), keys()
    assert not processes()


def uninstalled() -> None:
    login(f"{PROGRAMS}/kagentctl uninstall")
    assert login("echo $SSH_AUTH_SOCK; ls $SSH_AUTH_SOCK", check=False).count("No such file") == 1
    assert "SSH_AUTH_SOCK" not in login("systemctl --user show-environment")


CHAPTERS = (
    installed_from_the_wheel,
    logins_and_services_find_the_agent,
    a_key_is_added_in_one_login_and_used_in_another,
    it_ends_when_idle_and_comes_back,
    killed("kagent-front"),
    killed("kagent-keeper"),
    the_service_is_stopped,
    the_journal_tells,
    logout_ends_the_keys,
    uninstalled,
)


def main(report: str) -> int:
    suite = ET.Element("testsuite", name="system")
    failed = 0
    for chapter in CHAPTERS:
        started = time.monotonic()
        case = ET.SubElement(suite, "testcase", name=chapter.__name__)
        try:
            chapter()
            told = "ok"
        except Exception:
            failed += 1
            told = "FAILED"
            ET.SubElement(case, "failure").text = traceback.format_exc()
            traceback.print_exc(file=sys.stdout)
        print(f"{told}: {chapter.__name__} ({time.monotonic() - started:.0f} s)", flush=True)
        if failed:
            break
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failed))
    tree = ET.Element("testsuites")
    tree.append(suite)
    ET.ElementTree(tree).write(report)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
