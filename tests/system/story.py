"""Days with kagent, told in the booted machine, as root; the standard library only,
and the manual pages' blocks.

Each chapter starts from where the last one has left the machine; with the first that fails
the stories end.  Writes a report as pytest does.
"""

from __future__ import annotations

import json
import pwd
import re
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.manual import block

SSH = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
SOCKET = "/run/user/1000/kagent/agent.sock"
PROGRAMS = "/home/alice/.venv/bin"
UNITS = "/home/alice/.config/systemd/user"
SECONDS = 90
IDLE_SECONDS = 8
# A minute is long for a test.
CONFIGURE_IDLE = (
    f"mkdir -p .config/kagent && echo 'idle-exit = \"{IDLE_SECONDS}s\"' >.config/kagent/kagent.toml"
)


class Login:
    """alice's, by ssh; it lasts until she logs out.  With the last one, her systemd ends."""

    def __init__(self, name: str) -> None:
        self.control = f"/run/login-{name}"

    def open(self) -> None:
        # With nothing of ours to hold open once it is in the background.
        subprocess.run(
            [*SSH, "-M", "-S", self.control, "-f", "-N", "alice@localhost"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=SECONDS,
        )

    def __call__(self, command: str, *, check: bool = True) -> str:
        """What a command says in it."""
        done = subprocess.run(
            [*SSH, "-n", "-S", self.control, "alice@localhost", command],
            capture_output=True,
            text=True,
            timeout=300,
        )
        told = done.stdout + done.stderr
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{told}"
        return told

    def shell(self, commands: str, *, check: bool = True) -> str:
        """What a login shell says that is given them; unlike a command, it reads /etc/profile."""
        done = subprocess.run(
            [*SSH, "-T", "-S", self.control, "alice@localhost"],
            # Behind what the machine tells whoever logs in.
            input=f"echo what was told:; {commands}",
            capture_output=True,
            text=True,
            timeout=300,
        )
        told = (done.stdout + done.stderr).rpartition("what was told:\n")[2]
        assert not check or done.returncode == 0, f"{commands}: {done.returncode}\n{told}"
        return told

    def close(self) -> None:
        command = [*SSH, "-S", self.control, "-O", "exit", "alice@localhost"]
        subprocess.run(command, check=True, capture_output=True)


alice, second = Login("first"), Login("second")


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not in {SECONDS} s: {what}"
        time.sleep(0.3)


def all_processes() -> dict[str, int]:
    """alice's processes, by name; of several the first, as the keeper is among its workers."""
    uid = pwd.getpwnam("alice").pw_uid
    found = {}
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        try:
            if re.search(rf"^Uid:\t{uid}\t", (folder / "status").read_text(), re.MULTILINE):
                found.setdefault((folder / "comm").read_text().strip(), int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def processes() -> dict[str, int]:
    """Those that are kagent's."""
    return {name: pid for name, pid in all_processes().items() if name.startswith("kagent-")}


def lasting() -> dict[str, int]:
    """Those of them that live as long as the agent."""
    names = ("kagent", "kagent-keeper", "kagent-front")
    return {name: pid for name, pid in all_processes().items() if name in names}


def keys() -> Counter[str]:
    """What of kagent's alice can see in /proc/keys, by type."""
    told = subprocess.run(
        ["setpriv", "--reuid=alice", "--regid=alice", "--clear-groups", "cat", "/proc/keys"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return Counter(line.split()[7] for line in told.splitlines() if "kagent:" in line)


def all_keys() -> int:
    """How many alice has, with those that nobody can see."""
    found = re.search(r"^ *1000: +\d+ (\d+)/", Path("/proc/key-users").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def holds_the_key() -> None:
    """In the kernel there is alice's key and nothing else of kagent's, and it signs."""
    seen = {"keyring": 1, "asymmetri": 1}  # as long as the kernel shows a type's name
    assert keys() == seen, keys()
    shown = alice("keyctl show @u")
    assert shown.count("keyring: kagent:user") == shown.count("asymmetric: kagent:SHA256:") == 1
    alice("ssh-add -T key.pub")
    assert keys() == seen, keys()


def installed_from_the_wheel() -> None:
    """After an administrator has done the rest."""
    as_root("modprobe pkcs8_key_parser")
    as_root("cp contrib/pam/kagent.conf /etc/security/kagent.conf")
    as_root("grep -v '^#' contrib/pam/kagent >>/etc/pam.d/sshd")
    alice.open()
    # Debian's pip: to unpack one for the environment takes an emulated machine most of a minute.
    alice("python3 -m venv --without-pip .venv")
    wheels = "--no-index --find-links /run/machine/wheels"
    alice(f"pip --python .venv/bin/python install -q --no-compile {wheels} kagent")
    told = alice(f"{PROGRAMS}/kagentctl install")
    assert "enabled and started kagent.socket" in told, told
    assert "SSH_AUTH_SOCK was /run/user/1000/openssh_agent" in told, told
    alice(CONFIGURE_IDLE)
    assert not processes()


def logins_and_services_find_the_agent() -> None:
    assert alice("echo $SSH_AUTH_SOCK") == f"{SOCKET}\n"
    service = "systemd-run --user --pipe -q"
    assert alice(f"{service} sh -c 'echo $SSH_AUTH_SOCK'") == f"{SOCKET}\n"


def the_service_is_hardened() -> None:
    told = alice("systemd-analyze --user --no-pager security kagent.service")
    assert "Overall exposure level for kagent.service: 6.2 " in told, told  # SECURITY.md says so


def a_key_is_added_in_one_login_and_used_in_another() -> None:
    alice("ssh-keygen -q -t rsa -b 2048 -N '' -f key && ssh-add -q key && rm key")
    alice("cat key.pub >>.ssh/authorized_keys")
    second.open()
    assert "(RSA)" in second("ssh-add -l")
    assert second(f"{' '.join(SSH)} -i key.pub -o BatchMode=yes localhost echo in") == "in\n"
    assert second("keyctl show @s").count("asymmetric: kagent:SHA256:") == 1
    holds_the_key()


def it_ends_when_idle_and_comes_back() -> None:
    wait_until(lambda: not processes(), "it ends when idle")
    assert "starts it with the next request" in alice(f"{PROGRAMS}/kagentctl status")
    assert not processes()
    holds_the_key()
    # The lookout may come late, where its imports take as long as in an emulated machine.
    started = ["kagent-front", "kagent-keeper", "kagent-lookout"]
    wait_until(lambda: sorted(processes()) == started, "its processes are there again")


def it_stays_with_a_sealed_key() -> None:
    alice("ssh-keygen -q -t ed25519 -N '' -f sealed && ssh-add -q sealed")
    wait_until(lambda: {"kagent-lookout", "kagent-sign"} <= processes().keys(), "all are there")
    before = processes()
    time.sleep(IDLE_SECONDS + 2)
    assert processes() == before
    told = alice(f"{PROGRAMS}/kagentctl status")
    assert "1 kernel, 1 sealed" in told, told
    assert "stays when idle, since it holds what would end with it" in told, told
    assert re.search(r"^memory: +[1-9]\d MiB$", told, re.MULTILINE), told


def the_front_is_killed() -> None:
    kill("kagent-front")
    alice("ssh-add -T sealed.pub")
    holds_the_key()


def the_keeper_is_killed() -> None:
    """And with it goes what only the agent has."""
    count = all_keys()
    kill("kagent-keeper")
    wait_until(lambda: all_keys() < count, "sealed keys end with the keeper")
    holds_the_key()
    assert "ED25519" not in alice("ssh-add -l")


def the_service_is_killed() -> None:
    alice("ssh-add -T key.pub && systemctl --user kill --signal=KILL kagent.service")
    wait_until(lambda: not processes(), "the service ends")
    holds_the_key()


def kill(name: str) -> None:
    pid = processes()[name]
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    wait_until(lambda: processes().get(name) != pid, f"{name} ends")


def the_journal_tells() -> None:
    told = alice(f"{PROGRAMS}/kagentctl log")
    assert "custody kernel" in told, told
    assert "result=signed" in told, told
    assert 'by="ssh ' in told, told
    assert "host=localhost user=alice" in told, told
    assert "Hint" not in told, told
    assert "result=signed" in alice(f"{PROGRAMS}/kagentctl log --lines 3 --json")


def logout_ends_the_keys() -> None:
    """The last one; while there is another login, they stay."""
    second.close()
    holds_the_key()
    alice("ssh-keygen -q -t rsa -b 1024 -N '' -f loaded")
    alice(f"{PROGRAMS}/kagentctl install --autoload loaded")
    alice("ssh-add -T loaded.pub key.pub")  # to install again did no harm to what was there
    alice.close()
    wait_until(lambda: not all_processes(), "alice's processes end")
    assert not keys(), keys()


def the_next_login_has_what_is_loaded_by_itself() -> None:
    alice.open()
    wait_until(lambda: keys()["asymmetri"] == 1, "the key is loaded")
    assert alice("ssh-add -L").split()[:2] == alice("cat loaded.pub").split()[:2]
    alice("ssh-add -T loaded.pub")


def the_rival_goes_behind() -> None:
    """Then it isn't to be turned off, and its keys are used through kagent."""
    other = "/run/user/1000/openssh_agent"
    told = alice(f"{PROGRAMS}/kagentctl install --behind {other}")
    assert "ssh-agent.socket" not in told, told
    alice("systemctl --user restart kagent.service")
    alice("ssh-keygen -q -t ed25519 -N '' -f other")
    alice(f"SSH_AUTH_SOCK={other} ssh-add -q other")
    alice("ssh-add -T other.pub")
    assert f"custody behind {other}\n" in alice(f"{PROGRAMS}/kagent-add -lv")


def the_rival_is_turned_off() -> None:
    """As install says; before that, kagent has come first all the same."""
    told = alice(f"{PROGRAMS}/kagentctl install")
    assert f"SSH_AUTH_SOCK was {SOCKET}" not in told, told
    turning_off = r"^    (systemctl --user (?:mask|set-environment) .*)$"
    commands = re.findall(turning_off, told, re.MULTILINE)
    assert "ssh-agent.socket" in commands[0], told
    for command in commands:
        alice(command)
    assert f"SSH_AUTH_SOCK={SOCKET}\n" in alice("systemctl --user show-environment")


def uninstalled() -> None:
    alice(f"{PROGRAMS}/kagentctl uninstall")
    assert "No such file" in alice(f"ls {SOCKET}", check=False)
    assert "SSH_AUTH_SOCK" not in alice("systemctl --user show-environment")
    assert alice(f"find {UNITS} -name 'kagent*'") == ""
    assert not processes()
    assert not keys(), keys()


def a_key_sealed_to_the_tpm_signs_for_ci() -> None:
    """As the manual says: its example's commands, root's and then ci's."""
    as_root("modprobe --remove pkcs8_key_parser")
    apt(f"install ./{packages()[0]}")
    assert "pkcs8_key_parser " in Path("/proc/modules").read_text()
    as_root(block("kagent.7", "echo pkcs8_key_parser"))
    told = as_root(block("kagent-provision.8", "apt-get install keyutils"))
    assert re.search(r"ok +rule 1, kagent:deploy, from systemd-creds: 3072 SHA256", told), told
    assert "as in /etc/kagent/identities" in told, told
    as_root("cat /run/deploy.pub >>/home/alice/.ssh/authorized_keys")
    login = f"{' '.join(SSH)} -o BatchMode=yes alice@localhost echo in"
    told = as_ci(f"ssh-add -l && {login} && {login} && kagentctl show && kagentctl doctor; true")
    assert "3072 SHA256" in told.splitlines()[0], told
    assert told.splitlines().count("in") == 2, told
    assert re.search(r"when it is needed; fetched\); .* left", told), told
    log = as_root(block("kagent-provision.8", "journalctl -t kagent-provision"))
    assert log.count("delivered kagent:deploy for ci by /usr/bin/python3") == 1, log
    assert "rule 1, for 3600 seconds" in log, log
    assert "PRIVATE" not in as_root("cat /etc/kagent/*; journalctl --output=cat")


def a_key_that_only_the_tpm_opens_is_remembered() -> None:
    """As the manual says: its example's command.  The file can go, and the passphrase is asked."""
    remember = block("kagent.toml.5", "kagentctl remember --tpm")
    askpass = "/run/askpass"
    Path(askpass).write_text("#!/bin/sh\necho >>~/asked\necho secret\n")
    Path(askpass).chmod(0o755)
    told = as_ci(
        "ssh-keygen -q -t ed25519 -N secret -f ~/.ssh/id_ed25519 && "
        f"{remember.strip()} && mv ~/.ssh/id_ed25519 ~/gone && kagent-add -l -v && "
        "ssh-add -T ~/.ssh/id_ed25519.pub && ssh-add -T ~/.ssh/id_ed25519.pub && "
        "kagentctl forget-source ~/.ssh/id_ed25519.pub",
        f"SSH_ASKPASS={askpass} SSH_ASKPASS_REQUIRE=force",
    )
    assert "which only this TPM opens, at its first use" in told, told
    assert "custody credential /home/ci/.config/kagent/id_ed25519.cred" in told, told
    assert "removed /home/ci/.config/kagent/id_ed25519.cred" in told, told
    assert len(Path("/home/ci/asked").read_text()) == 1
    assert "PRIVATE" not in as_root("journalctl --output=cat")


def apt(words: str) -> str:
    return as_root(f"DEBIAN_FRONTEND=noninteractive apt-get -y {words}")


def as_root(commands: str) -> str:
    done = subprocess.run(
        ["sh", "-euc", commands], cwd="/run/machine", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{commands}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def as_ci(commands: str, variables: str = "") -> str:
    """In a login of ci's, with a kagent started by hand that has these variables."""
    kagent = f'eval "$({variables} kagent -s)"; {commands}; kagent -k'
    done = subprocess.run(
        [*SSH, "-n", "ci@localhost", kagent], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.partition("\n")[2]  # after the agent's pid


def installed_from_the_package() -> None:
    """With one command, and the user who was there before needs none; nor does who logs in next."""
    alice.open()
    apt(f"install ./{packages()[0]}")
    wait_until(Path(SOCKET).exists, "the socket is there")
    environment = alice("systemctl --user show-environment")
    assert f"SSH_AUTH_SOCK={SOCKET}\n" in environment, environment
    assert alice.shell("echo $SSH_AUTH_SOCK") == f"{SOCKET}\n"
    alice.close()
    wait_until(lambda: not all_processes(), "alice's processes end")
    alice.open()
    assert alice.shell("echo $SSH_AUTH_SOCK") == f"{SOCKET}\n"
    assert alice.shell("SSH_AUTH_SOCK=/forwarded bash -lc 'echo $SSH_AUTH_SOCK'") == "/forwarded\n"
    service = "systemd-run --user --pipe -q sh -c 'echo $SSH_AUTH_SOCK'"
    assert alice(service) == f"{SOCKET}\n"


def the_kernel_signs_at_once() -> None:
    alice("ssh-keygen -q -t rsa -b 2048 -N '' -f key")
    alice.shell("ssh-add -q key && rm key && ssh-add -T key.pub")
    assert keys() == {"keyring": 1, "asymmetri": 1}, keys()


def nothing_of_it_is_the_users_to_write() -> None:
    found = json.loads(alice.shell("kagentctl doctor --json"))
    assert found["files"]["verdict"] == "ok", found["files"]
    assert found["units"] == {
        "verdict": "ok",
        "told": "the system's package has them, for all users",
        "mend": "",
    }
    assert found["SSH_AUTH_SOCK"]["verdict"] == "ok", found["SSH_AUTH_SOCK"]
    assert alice("find $(dpkg -L kagent) -maxdepth 0 -writable ! -type l") == ""
    for page in "man1/kagentctl.1", "man7/kagent.7", "man8/kagent-provision.8":
        assert Path(f"/usr/share/man/{page}.gz").exists()
    assert Path("/proc/sys/kernel/keys/maxkeys").read_text() == "2000\n"


def a_user_goes_without_it() -> None:
    told = alice.shell("kagentctl install --behind /other", check=False)
    assert 'behind = ["/other"]' in told, told
    alice.shell("kagentctl uninstall")
    assert not Path(SOCKET).exists()
    assert not keys(), keys()
    assert alice.shell("echo $SSH_AUTH_SOCK") == "\n"
    told = alice.shell("kagentctl install")
    assert "enabled and started kagent.socket" in told, told
    assert "wrote" not in told, told
    assert alice(f"find {UNITS} -name 'kagent*' || true").count("kagent") == 0
    assert alice.shell("echo $SSH_AUTH_SOCK") == f"{SOCKET}\n"


def commands_of_ssh_find_it_by_pam() -> None:
    """Once an administrator turns it on."""
    assert alice("echo $SSH_AUTH_SOCK") == "\n"
    as_root("pam-auth-update --enable kagent")
    third = Login("third")
    third.open()
    assert third("echo $SSH_AUTH_SOCK") == f"{SOCKET}\n"
    # This is a login too, since root has none here.
    assert as_root("su - alice -c 'echo $SSH_AUTH_SOCK'") == f"{SOCKET}\n"
    third.close()
    as_root("pam-auth-update --disable kagent")


def upgraded_with_keys_held() -> None:
    """Nothing of the agent changes but what it is told is on the disk; nobody is refused."""
    alice(f"{CONFIGURE_IDLE} && systemctl --user restart kagent.service")
    alice.shell("ssh-keygen -q -t rsa -b 2048 -N '' -f key <<<y >/dev/null && ssh-add -q key")
    alice.shell("ssh-keygen -q -t ed25519 -N '' -f sealed && ssh-add -q sealed")
    told = alice.shell("ssh-add -T key.pub sealed.pub && kagentctl status")
    assert "holds what would end with it" in told, told
    assert "upgrade" not in told, told
    wait_until(lambda: {"kagent-lookout", "kagent-sign"} <= processes().keys(), "all are there")
    before = lasting()
    with under_load("key.pub", "sealed.pub"):
        apt(f"install ./{packages()[1]}")
    assert lasting() == before
    assert [one.name for one in Path("/usr/share/kagent").iterdir()] == [version(packages()[1])]
    reload = alice("systemctl --user show -P NeedDaemonReload kagent.service kagent.socket")
    assert reload.split() == ["no", "no"], reload


def the_old_one_works_on() -> None:
    """With nothing of its files left."""
    alice.shell("ssh-add -T key.pub sealed.pub")
    alice.shell("ssh-keygen -q -t ecdsa -N '' -f new && ssh-add -q -c -t 100 new && ssh-add -d new")
    kill("kagent-lookout")
    kill("kagent-front")
    alice.shell("ssh-add -T key.pub sealed.pub")
    told = alice.shell("kagentctl status")
    assert f"version:    {version(packages()[0])}\n" in told, told
    restart = "when you say so, without the keys that it holds: systemctl --user restart"
    assert f"upgrade:    to {version(packages()[1])} {restart}" in told, told
    assert "1 kernel, 1 sealed" in told, told


def the_new_one_starts_when_the_user_says_so() -> None:
    alice.shell("set -e\n" + block("kagent.7", "kagentctl status"))
    told = alice.shell("ssh-add -T key.pub && kagentctl status")
    assert f"version:    {version(packages()[1])}\n" in told, told
    assert "upgrade" not in told, told
    assert "1 kernel\n" in told, told


def or_when_the_old_one_is_idle() -> None:
    """The other way round, as the next version is older here."""
    with under_load("key.pub"):
        apt(f"install --allow-downgrades ./{packages()[0]}")
    told = alice.shell("kagentctl status")
    assert f"to {version(packages()[0])} when idle" in told, told
    wait_until(lambda: not processes(), "it ends when idle")
    told = alice.shell("ssh-add -T key.pub && kagentctl status")
    assert f"version:    {version(packages()[0])}\n" in told, told


def removed() -> None:
    """Nothing runs, nothing is left but what was configured, and logins are as before."""
    own = "/home/ci/.config/systemd/user"
    as_root(f"loginctl enable-linger ci && systemctl start user@$(id -u ci) && mkdir -p {own}")
    as_root(f"cp /usr/lib/systemd/user/kagent.* {own} && chown -R ci: /home/ci")
    of_ci = "systemctl --user --machine=ci@"
    as_root(f"{of_ci} daemon-reload && {of_ci} restart kagent.socket")
    apt("remove kagent")
    assert not processes()
    assert as_root(f"{of_ci} is-active kagent.socket") == "active\n"  # of their own
    as_root("loginctl disable-linger ci")
    assert not keys(), keys()
    assert alice.shell("echo $SSH_AUTH_SOCK; type kagent || true").startswith("\n")
    alice.close()
    wait_until(lambda: not all_processes(), "alice's processes end")
    alice.open()
    assert alice.shell("echo $SSH_AUTH_SOCK") == "\n"
    assert alice("systemctl --user --failed --no-legend") == ""
    apt("purge kagent")
    found = as_root(
        "find / -xdev -name '*kagent*' ! -path '/home/*' ! -path '/run/machine/*' ! -path '/proc/*'"
    )
    assert found == "", found
    assert "kagent" not in as_root("grep -r kagent /etc || true")


# What a user's programs do again and again, each of them at once; in the last a number is theirs.
BUSY = (
    *["ssh-add -l"] * 2,
    *["ssh-add -T $KEYS"] * 4,
    *["ssh-add -q -t 100 own$N && ssh-add -T own$N.pub && ssh-add -q -d own$N"] * 2,
)


@contextmanager
def under_load(*keys: str) -> Iterator[None]:
    """Meanwhile keys are listed, sign, are loaded and removed all the time; never is one refused.

    `keys` are files of those that sign.
    """
    makes = "rm -f own$N own$N.pub && ssh-keygen -q -t ed25519 -N '' -f own$N"
    words = [f"export SSH_AUTH_SOCK={SOCKET} KEYS='{' '.join(keys)}'", "touch busy"]
    for number, command in enumerate(BUSY):
        again = f"while [ -e busy ]; do if {command}; then echo did {number}; else echo failed; fi"
        words.append(f"(N={number}; {makes}; {again}; done) 2>&1 &")
    with subprocess.Popen(
        [*SSH, "-n", "-S", alice.control, "alice@localhost", "\n".join([*words, "wait"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as clients:
        yield
        alice("rm busy")
        told = clients.communicate()[0]
    did = Counter(re.findall(r"^did (\d)$", told, re.MULTILINE))
    assert "failed" not in told, told
    assert len(did) == len(BUSY), did
    told = ", ".join(f"{BUSY[int(number)]}: {count}" for number, count in sorted(did.items()))
    print(f"done meanwhile: {told}")


def packages() -> list[str]:
    """The paths of kagent's packages: this version's, and the next one's."""
    found = sorted(Path("/run/machine/packages").iterdir(), key=lambda one: len(one.name))
    return [f"packages/{one.name}" for one in found]


def version(package: str) -> str:
    return package.split("_")[1]


# By who tells them: a user; an administrator, who has a TPM; and one whose Debian has the package.
STORIES = {
    "user": (
        installed_from_the_wheel,
        logins_and_services_find_the_agent,
        the_service_is_hardened,
        a_key_is_added_in_one_login_and_used_in_another,
        it_ends_when_idle_and_comes_back,
        it_stays_with_a_sealed_key,
        the_front_is_killed,
        the_keeper_is_killed,
        the_service_is_killed,
        the_journal_tells,
        logout_ends_the_keys,
        the_next_login_has_what_is_loaded_by_itself,
        the_rival_goes_behind,
        the_rival_is_turned_off,
        uninstalled,
    ),
    "administrator": (
        a_key_sealed_to_the_tpm_signs_for_ci,
        a_key_that_only_the_tpm_opens_is_remembered,
    ),
    "package": (
        installed_from_the_package,
        the_kernel_signs_at_once,
        nothing_of_it_is_the_users_to_write,
        a_user_goes_without_it,
        commands_of_ssh_find_it_by_pam,
        upgraded_with_keys_held,
        the_old_one_works_on,
        the_new_one_starts_when_the_user_says_so,
        or_when_the_old_one_is_idle,
        removed,
    ),
}


def main(report: str, *stories: str) -> int:
    suite = ET.Element("testsuite", name="system")
    failed = 0
    for chapter in (chapter for story in stories for chapter in STORIES[story]):
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
            journal = ["journalctl", "--no-pager", "--lines=40", "--output=short-monotonic"]
            print(subprocess.run(journal, capture_output=True, text=True).stdout)
        seconds = time.monotonic() - started
        case.set("time", f"{seconds:.3f}")
        print(f"{told}: {chapter.__name__} ({seconds:.0f} s)", flush=True)
        if failed:
            break
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failed))
    tree = ET.Element("testsuites")
    tree.append(suite)
    ET.ElementTree(tree).write(report)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
