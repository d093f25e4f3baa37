"""Manual pages, completions and units: what is shipped beside the code is as it should be."""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kagent.cli import agent, provision
from kagent.cli.add import options as add_options
from kagent.cli.ctl import main as ctl

CHECKOUT = Path(__file__).parent.parent.parent
COMPLETIONS = CHECKOUT / "contrib/completions"
PAGES = sorted((CHECKOUT / "contrib/man").iterdir())
WORDS = {
    "kagent": {"custody", "keyring", "burst", "idle-exit", "behind", "confirm-behind"},
    "kagent-add": {word.rstrip("=") for word in add_options._WORDS},
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_manual_page(page: Path) -> None:
    told = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout) == (0, "")


@pytest.mark.parametrize(
    ("page", "parser"), [("kagentctl.1", ctl.parser), ("kagent-provision.8", provision.parser)]
)
def test_every_command_is_in_the_manual(
    page: str, parser: Callable[[], argparse.ArgumentParser]
) -> None:
    text = (CHECKOUT / "contrib/man" / page).read_text()
    [commands] = [one for one in parser()._actions if one.dest == "==SUPPRESS=="]
    for name in commands.choices or ():
        assert f"Cm {name}" in text


@pytest.mark.parametrize("program", WORDS)
def test_every_word_is_in_manual_and_completions(program: str) -> None:
    assert all(f"--{word}" in agent._USAGE + add_options._USAGE for word in WORDS[program])
    for word in WORDS[program]:
        assert f"Fl -{word}" in (CHECKOUT / f"contrib/man/{program}.1").read_text()
        for shell, shown in (("bash", f"--{word}"), ("zsh", f"--{word}"), ("fish", f"-l {word} ")):
            assert shown in (COMPLETIONS / f"{program}.{shell}").read_text()


def test_completions_are_those_of_the_parser() -> None:
    """After a change: contrib/completions/make."""
    made = runpy.run_path(str(COMPLETIONS / "make"))["all_made"]()
    for name, text in made.items():
        assert (COMPLETIONS / name).read_text() == text


@pytest.mark.parametrize("program", ["kagent", "kagent-add", "kagentctl", "kagent-provision"])
def test_completions_load(program: str) -> None:
    bash = f". {COMPLETIONS}/{program}.bash; complete -p {program}"
    subprocess.run(["bash", "-euc", bash], check=True, stdout=subprocess.DEVNULL)
    check = ["zsh", "-fn", COMPLETIONS / f"{program}.zsh"]
    assert subprocess.run(check, capture_output=True, text=True).stderr == ""
    fish = f"source {COMPLETIONS}/{program}.fish; complete -C '{program} --'"
    told = subprocess.run(["fish", "-N", "-c", fish], capture_output=True, text=True)
    assert told.returncode == 0
    assert told.stderr == ""


def test_completions_complete() -> None:
    bash = (
        f". {COMPLETIONS}/kagent.bash; COMP_WORDS=(kagent --keyring p); COMP_CWORD=2; _kagent; "
        'echo "${COMPREPLY[@]}"'
    )
    told = subprocess.run(["bash", "-c", bash], capture_output=True, text=True, check=True)
    assert told.stdout == "persistent private\n"
    fish = f"source {COMPLETIONS}/kagentctl.fish; complete -C 'kagentctl st'"
    told = subprocess.run(["fish", "-N", "-c", fish], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("status\t")


@pytest.mark.parametrize("program", ["kagent", "kagent-add", "kagentctl", "kagent-provision"])
def test_help(program: str) -> None:
    command = [Path(sys.executable).with_name(program), "--help"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"usage: {program} ")


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from kagent.cli.ctl import main; main.parser(()).format_help(); "
        "print(*(name for name in sys.modules if name.startswith('kagent.cli.ctl.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "kagent.cli.ctl.main\n"


@pytest.mark.parametrize("name", ctl._COMMANDS)
def test_a_command_explains_itself(name: str) -> None:
    parser = ctl.parser([name])
    [commands] = [one for one in parser._actions if one.dest == "==SUPPRESS=="]
    text = commands.choices[name].format_help()  # type: ignore[index,call-overload]
    module = importlib.import_module(f"kagent.cli.ctl.{name.replace('-', '_')}")
    assert module.__doc__
    assert module.__doc__ in text


def test_readme_shows_what_is_shown() -> None:
    """After a change: contrib/transcript."""
    steps = re.findall(r'^step "(.*)"$', (CHECKOUT / "contrib/show").read_text(), re.MULTILINE)
    readme = (CHECKOUT / "README.md").read_text()
    assert re.findall(r"^== (.*)$", readme, re.MULTILINE) == steps


def test_units() -> None:
    """systemd finds nothing in them that it doesn't know."""
    units = sorted((CHECKOUT / "systemd").iterdir())
    told = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *units],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": "/run", "HOME": "/"},
    )
    lines = [line for line in told.stderr.splitlines() if "is not executable" not in line]
    assert lines == []


def test_the_threat_model_names_tests_that_are_there() -> None:
    """For each "can't" of kagent(7)."""
    page = (CHECKOUT / "contrib/man/kagent.7").read_text()
    named = re.findall(r"^\.Dl (\w+/test_\w+\.py)(?:: (test_\w+))?$", page, re.MULTILINE)
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}" in (CHECKOUT / "tests" / file).read_text(), (file, test)
