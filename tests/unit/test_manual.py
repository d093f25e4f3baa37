"""What README and the manual pages have people type is run by a test, as it stands there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess

import pytest

from kagent.cli.add.options import _USAGE as ADD_USAGE
from kagent.cli.agent import _USAGE as AGENT_USAGE
from kagent.cli.ctl import main as ctl
from tests.support.manual import CHECKOUT, PAGES, README, blocks, rendered, text

# By how each begins: why no test has it as it stands there.
NOT_RUN = {
    (README, "ssh-agent       "): "a picture",
    (README, "./contrib/quickstart"): "boots a machine, and runs these tests",
    (
        README,
        "== An RSA key",
    ): "of contrib/show, by contrib/transcript; see test_shipped",
    (README, "sudo sh -c 'modprobe"): "as kagent(7) has it for root, which a story runs",
    (README, "contrib/package"): "takes sudo; system/story.py: installed_from_the_package",
    (README, "pipx install ."): "takes a network; system/story.py: installed_from_the_wheel",
    ("kagent-provision.8", "kagent:deploy ssh-rsa"): "a line without its key",
    ("kagent-provision.8", "python3 -m venv /opt/kagent"): "takes a network, and is root's",
    ("kagent-provision.8", 'eval "$(kagent -s)" && git push'): (
        "system/story.py logs in instead: a_key_sealed_to_the_tpm_signs_for_ci"
    ),
    ("kagent.7", " ssh --1--> front"): "a picture",
}


def run() -> set[tuple[str, str]]:
    """What tests take from the pages, by the words with which they call `block`."""
    found = set()
    for path in (CHECKOUT / "tests").rglob("*.py"):
        if "block(" not in (source := path.read_text()):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                given = [one.value for one in node.args if isinstance(one, ast.Constant)]
                if node.func.id == "block" and len(given) == 2:
                    found.add((str(given[0]), str(given[1])))
    return found


def test_each_block_is_run() -> None:
    there = {(page, one) for page in PAGES for one in blocks(page)}
    known = run() | NOT_RUN.keys()
    told = {
        (page, one.splitlines()[0])
        for page, one in there
        if not any(page == where and one.startswith(first) for where, first in known)
    }
    assert not told, "no test runs these; tests.support.manual.block gives them to one"
    for where, first in NOT_RUN:
        assert any(page == where and one.startswith(first) for page, one in there), first


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("page", [page for page in PAGES if page != README])
def test_a_page_is_shown_as_it_is_meant(page: str) -> None:
    """With no warning, in no more columns than a terminal has, and whole in ASCII as well."""
    path = CHECKOUT / "contrib/man" / page
    for device in ("utf8", "ascii"):
        words = ["groff", "-k", "-ww", "-P-c", "-rLL=78n", f"-T{device}", "-mandoc", path]
        shown = subprocess.run(words, capture_output=True, text=True)
        assert shown.stderr == ""
        lines = re.sub(".\b", "", shown.stdout).splitlines()
        assert [line for line in lines if len(line) > 80] == []


def named() -> list[str]:
    """The commands in the midst of sentences, with their arguments."""
    texts = [text(README), *(rendered(page) for page in PAGES if page != README)]
    lines = {line for one in texts for line in re.findall(r"`(kagent[^`\n]*)`", one)}
    return sorted(line for line in lines if " " in line)


@pytest.mark.parametrize("line", named())
def test_what_is_named_is_there(line: str) -> None:
    """Its command, and each of its words."""
    program, *words = line.replace("\\", "").split()
    if program == "kagentctl":
        options = ctl.parser([words[0]])
        [commands] = [one for one in options._actions if one.dest == "==SUPPRESS=="]
        usage = commands.choices[words[0]].format_help()  # type: ignore[index,call-overload]
    else:
        usage = AGENT_USAGE + ADD_USAGE
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in usage, word
