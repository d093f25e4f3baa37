"""An agent that runs while its files are replaced: it is whole, and of one version."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.behind import AsyncsshAgent, scripted
from tests.support.programs import RSA, Person, agent, sshd
from tests.support.softhsm import LIBRARY, soft_token, with_pin
from tests.support.tokens import PROVIDER

# Who looks for a module when the file `replaced` is there gets none, and
# the file says which.
AS_IF_REPLACED = """\
import os, sys
def look(event, arguments):
    if event == "import" and os.path.exists("{replaced}"):
        with open("{replaced}", "a") as file:
            file.write(arguments[0] + "\\\\n")
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
    assert replaced.read_text() == "", running.logged()
