"""An agent that runs while its files are replaced: it is whole, and of one version."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import kagent
from tests.support.behind import AsyncsshAgent, scripted
from tests.support.programs import RSA, Person, agent, sshd
from tests.support.softhsm import LIBRARY, soft_token, with_pin
from tests.support.tokens import PROVIDER

# Whoever looks for a module when the file is there finds none, and so does a process that may not
# even look whether it is there; the file says what it was.
AS_IF_REPLACED = """\
import os, sys
def look(event, arguments):
    if event != "import":
        return
    try:
        os.stat("{replaced}")
        with open("{replaced}", "a") as file:
            file.write(arguments[0] + "\\n")
    except FileNotFoundError:
        return
    except OSError:
        pass
    raise ImportError("it was replaced")
sys.addaudithook(look)
"""


def test_nothing_is_imported_once_there_is_a_key(person: Person, folder: Path) -> None:
    """By no process, whatever is asked of it: what is on the disk may be another version's."""
    replaced = person.home / "replaced"
    changed = person.changed_kagent(AS_IF_REPLACED.format(replaced=replaced))
    token = soft_token(person, "rsa", "ecdsa")
    other = person.key("other")
    keys = [person.key("first", *RSA), person.key("second", "-t", "ecdsa"), person.key("third")]
    fido = person.home / "fido"
    person.run("ssh-keygen", "-q", "-t", "ed25519-sk", "-w", PROVIDER, "-N", "", "-f", fido)
    yes = person.file("yes", "#!/bin/sh\nexit 0\n", 0o700)
    env = {"SSH_ASKPASS": str(yes), "DISPLAY": ":0"}
    with (
        scripted(person, "behind", AsyncsshAgent(other)) as behind,
        sshd(person, folder / "sshd", (person.home / "first.pub").read_text()) as server,
        agent(
            person, "kagent", "-P*", "--behind", behind, env={**changed, **token.env, **env}
        ) as running,
    ):
        running.run("ssh-add", "-q", keys[0])
        person.file("replaced", "")
        for key in keys:
            running.run("ssh-add", "-q", key)
            running.run("ssh-add", "-T", f"{key}.pub")
        running.run("ssh-add", "-q", "-c", "-t", "1000", keys[1])
        running.run("ssh-add", "-T", f"{keys[1]}.pub")
        running.run("ssh-add", "-T", f"{other}.pub")
        running.run("ssh-add", "-q", "-S", PROVIDER, fido)
        running.run("ssh-add", "-T", f"{fido}.pub")
        running.run("ssh-add", "-q", "-s", LIBRARY, **with_pin(person))
        running.run("ssh-add", "-T", "rsa.pub", "ecdsa.pub")
        running.run(*server.ssh(person, "-A"), "ssh-add", "-l")
        os.kill(running.front, signal.SIGKILL)
        running.run("ssh-add", "-T", *(f"{key}.pub" for key in keys))
        for pid in (*running.lookouts, *running.signers):
            os.kill(pid, signal.SIGKILL)
        running.run("ssh-add", "-T", *(f"{key}.pub" for key in keys))
        running.run("kagentctl", "show")
        for option in ("-x", "-X"):
            running.run("ssh-add", option, **with_pin(person))
        running.run("ssh-add", "-d", keys[0])
        running.run("ssh-add", "-D")
    assert (replaced.read_text(), "it was replaced" in running.logged()) == ("", False)


def test_what_starts_meanwhile_is_of_one_version(tmp_path: Path) -> None:
    """A package has a folder for each version, and a link to it that is changed in one step."""
    for version in "old", "new":
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(kagent.__file__).parent, tmp_path / version, ignore=ignored)
    (tmp_path / "kagent").symlink_to("old")
    code = f"""
import os, sys
sys.path.insert(0, "{tmp_path}")
import kagent.text
os.symlink("new", "{tmp_path}/other")
os.rename("{tmp_path}/other", "{tmp_path}/kagent")
import kagent.protocol.wire
print(kagent.text.__file__, kagent.protocol.wire.__file__)
"""
    told = subprocess.run([sys.executable, "-Ic", code], capture_output=True, text=True)
    assert told.stdout == f"{tmp_path}/old/text.py {tmp_path}/old/protocol/wire.py\n", told
