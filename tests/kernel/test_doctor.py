"""kagentctl doctor on a machine that signs, and where one thing is amiss."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import keys
from tests.machine.environment import CHECKOUT
from tests.support.programs import Agent, wait_until

FILL = """
from kagent.keyctl import QuotaExceeded, session_keyring
ring, fillers = session_keyring(), []
try:
    for number in range(200):
        fillers.append(ring.add("user", f"filler:{number}", b"x"))
except QuotaExceeded:
    pass
for filler in fillers[:20]:
    ring.unlink(filler)
"""


def findings(kagent: Agent, code: int) -> dict[str, dict[str, str]]:
    told = kagent.run("kagentctl", "doctor", "--json", check=False)
    assert told.returncode == code, told.stdout
    found: dict[str, dict[str, str]] = json.loads(told.stdout)
    return found


@pytest.mark.distribution
def test_all_is_well(kagent: Agent) -> None:
    found = findings(kagent, 0)
    assert {finding["verdict"] for finding in found.values()} == {"ok"}
    assert "signed with it" in found["parser"]["told"]
    lines = kagent.run("kagentctl", "doctor").stdout.splitlines()
    assert [line.split(":")[0].removeprefix("ok").strip() for line in lines] == list(found)


@pytest.fixture
def without_parser() -> Iterator[None]:
    if "pkcs8_key_parser" not in Path("/proc/modules").read_text():
        pytest.skip("this kernel has it built in")
    subprocess.run(["rmmod", "pkcs8_key_parser"], check=True)
    yield
    subprocess.run(["modprobe", "pkcs8_key_parser"], check=True)


@pytest.mark.alone
@pytest.mark.skipif(os.getuid() != 0, reason="only root unloads modules")
@pytest.mark.usefixtures("without_parser")
def test_parser_not_loaded(kagent: Agent) -> None:
    """Told by doctor with the command that mends it; meanwhile keys are sealed."""
    found = findings(kagent, 0)["parser"]
    assert found["verdict"] == "warning"
    assert "modprobe pkcs8_key_parser" in found["mend"]
    told = kagent.run("kagent-add", "-v", kagent.person.file("key", keys.rsa(2048)))
    assert "custody sealed" in told.stderr
    assert "modprobe pkcs8_key_parser" in told.stderr


def test_files_of_the_user_s_own(kagent: Agent) -> None:
    """A program that comes later could change what runs: told, with what mends it."""
    person = kagent.person
    if person.uid == 0:
        pytest.skip("root's files are root's own")
    assert findings(kagent, 0)["files"]["verdict"] == "ok"
    copy = shutil.copytree(CHECKOUT / "kagent", person.home / "kagent")
    subprocess.run(["chown", "-R", str(person.uid), copy], check=True)
    program = "import sys; from kagent.cli.ctl.main import main; sys.exit(main())"
    told = kagent.run(sys.executable, "-c", program, "doctor", "--json")
    found = json.loads(told.stdout)["files"]
    assert found["verdict"] == "warning"
    assert f"can change {copy / '__init__.py'}" in found["told"]
    assert "install" in found["mend"]


def test_another_agent(kagent: Agent) -> None:
    told = kagent.run("ssh-agent", "kagentctl", "doctor", "--json")
    assert json.loads(told.stdout)["SSH_AUTH_SOCK"]["verdict"] == "warning"


def test_quota(kagent: Agent) -> None:
    """Used up but for a little: a key is sealed, which counts nothing, and both say why."""
    if kagent.person.uid == 0:
        pytest.skip("root's quota is another")
    kagent.run("ssh-add", "-l", check=False)  # when it answers, it has the keyrings that it needs
    kagent.run(sys.executable, "-c", FILL)
    found = findings(kagent, 0)["quota"]
    assert found["verdict"] == "warning"
    assert "sysctl" in found["mend"]
    key = kagent.person.file("key", keys.rsa(2048))
    told = kagent.run("kagent-add", "-v", key)
    assert "custody sealed (your quota of kernel keys is used" in told.stderr
    told = kagent.run("kagent-add", "--custody", "kernel", key)
    assert told.returncode == 0
    kagent.run("keyctl", "clear", "@s")
    wait_until(lambda: "warning" not in findings(kagent, 0)["quota"]["verdict"])
