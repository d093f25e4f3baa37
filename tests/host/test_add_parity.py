"""kagent-add and ssh-add say and do the same."""

from __future__ import annotations

import pwd
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import RSA, Agent, Person, Same

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "options",
    [
        RSA,
        (*RSA, "-m", "PEM"),
        (*RSA, "-m", "PKCS8"),
        ("-t", "ed25519"),
        ("-t", "ecdsa", "-b", "384"),
        ("-t", "ecdsa", "-b", "521", "-m", "PEM"),
    ],
    ids=" ".join,
)
def test_a_keys_life(same: Same, person: Person, options: tuple[str, ...]) -> None:
    person.key("key", *options)
    assert "no identities" in same("-l").stdout
    assert "Identity added: key (" in same("key").stderr
    for hash_name in ("md5", "SHA1", "sha256", "sha384", "sha512"):
        assert "key" in same("-l", "-E", hash_name).stdout
    assert same("-L").returncode == 0
    assert same("-T", "key.pub").returncode == 0
    assert "Identity removed: key" in same("-d", "key").stderr
    assert "agent refused operation" in same("-T", "key.pub").stderr
    assert "Could not remove" in same("-d", "key").stderr
    assert same("key", "-q").returncode == 1  # an option behind a file is a file
    assert same("-q", "key").stderr == ""
    assert same("-D").stderr == "All identities removed.\n"
    assert same("-qD").stderr == ""


def openssl(person: Person, name: str, *words: str) -> None:
    """The RSA key in `plain`, encrypted into the file `name`."""
    legacy = ("-provider", "legacy", "-provider", "default")
    person.run("openssl", *words, "-in", "plain", "-out", name, "-passout", "pass:geheim", *legacy)
    (person.home / name).chmod(0o600)


def test_a_key_that_takes_openssls_command(same: Same, ours: Same, person: Person) -> None:
    person.key("plain", *RSA, "-m", "PEM")
    openssl(person, "old", "rsa", "-traditional", "-camellia256")
    told = same("old", input="falsch\ngeheim\n").stderr
    assert "Bad passphrase" in told
    assert "Identity added: old (old)" in told
    openssl(person, "oldest", "pkcs8", "-topk8", "-v2", "seed")
    told = ours("oldest", input="geheim\n").stderr
    assert told.count("assphrase") == 1
    assert 'Error loading key "oldest": key encrypted using unsupported cipher; ' in told


def test_order_and_several_files(same: Same, person: Person) -> None:
    for name in ("one", "two", "three"):
        person.key(name, "-t", "ed25519")
    assert same("one", "missing", "two").returncode == 1
    assert same("three").returncode == 0
    assert same("one").returncode == 0
    listed = same("-l").stdout
    assert [line.split()[2] for line in listed.splitlines()] == ["one", "two", "three"]
    assert same("-d", "two", "missing", "three").returncode == 1
    assert same("-d", "-", input=(person.home / "one.pub").read_text()).returncode == 0
    assert same("-d", "-", input="# nothing\n\n").returncode == 1


def test_standard_input(same: Same, person: Person) -> None:
    path = person.key("key", *RSA, "-m", "PEM")
    assert "Identity added: (stdin) ((stdin))" in same("-", input=path.read_text()).stderr


def test_bad_files(same: Same, person: Person) -> None:
    person.file("empty", "")
    person.file("garbage", "garbage\n")
    person.file("half", person.key("key", *RSA, "-m", "PEM").read_text()[:200])
    person.file("open", (person.home / "key").read_bytes(), mode=0o644)
    (person.home / "directory").mkdir(mode=0o700)
    for name in ("open", "directory", "missing"):
        assert same(name).returncode == 1
    for name in ("empty", "garbage", "half"):
        assert same(name).stderr == f'Error loading key "{name}": invalid format\n'
    for name in ("empty", "garbage", "half", "open", "missing"):
        assert same("-T", name).returncode == 1
        assert same("-d", name).returncode == 1


def test_command_lines_that_make_no_sense(same: Same) -> None:
    for words in (
        ("-l", "-L"),
        ("-l", "-l"),
        ("-l", "-D"),
        ("-x", "-X"),
        ("-x", "-D"),
        ("-X", "-l"),
        ("-E", "sha3"),
        ("-E", "käse\\\t"),
        ("-T",),
        ("-T", "-d"),
    ):
        assert same(*words).returncode == 255
    for life in ("", "x", "1x", "-1", "1h ", "9999999999", "4000w"):
        assert same("-t", life).stderr == "Invalid lifetime\n"


def test_the_first_of_several_actions(same: Same, ours: Same, person: Person) -> None:
    person.key("key", "-t", "ed25519")
    assert "Identity added" in same("-m", "1", "-M", "x", "key").stderr  # mean nothing any more
    assert "key käse (ED25519)" in same("-l", "-T", "-d", "-c", "-h", "nowhere", "missing").stdout
    assert same("-T", "-d", "key").returncode == 0
    assert "No host keys found" in same("-d", "-h", "nowhere", "key").stderr
    assert "key käse (ED25519)" in same("-l").stdout
    assert same("-e", "/nowhere.so").returncode == 1
    assert same("-s", "/nowhere.so", "-d").returncode == 1
    assert "key käse (ED25519)" in same("-l").stdout


def test_a_command_line_is_read_before_an_agent_is_looked_for(same: Same) -> None:
    assert same("-t", "x", SSH_AUTH_SOCK="").stderr == "Invalid lifetime\n"
    assert same("-l", "-L", SSH_AUTH_SOCK="").returncode == 255


def test_unknown_option(agents: tuple[Agent, Agent]) -> None:
    for words in (["-z"], ["-E"]):
        theirs = agents[0].run("ssh-add", *words, check=False)
        ours = agents[1].run("kagent-add", *words, check=False)
        assert ours.returncode == theirs.returncode == 1
        assert ours.stderr.splitlines()[0] == theirs.stderr.splitlines()[0]


def test_confirmation(same: Same, person: Person) -> None:
    person.key("key", "-t", "ed25519", passphrase="geheim")
    told = same("-c", "key", input="falsch\ngeheim\n").stderr
    assert told.count("for key (will confirm each use): ") == 2
    assert told.endswith("The user must confirm each use of the key\n")
    assert same("-cq", "key", input="geheim\n").stderr.endswith("each use): ")


def test_lifetimes(same: Same, person: Person) -> None:
    person.key("key", "-t", "ed25519")
    for life, told in (
        ("90", "00:01:30"),
        ("1H30m", "01:30:00"),
        ("1d1s", "1d00h00m"),
        ("2w3d4h", "02w3d04h"),
        ("1.9", "00:00:01"),
    ):
        added = "Identity added: key (key käse)\n"
        assert same("-t", life, "key").stderr == f"{added}Lifetime set to {told}\n"
        assert same("-q", "-t", life, "key").stderr == ""
    assert "Lifetime" not in same("-t", "0", "key").stderr
    for life in ("1.5m", "1.", "1.2.3", "10s5", "1e3"):
        assert same("-t", life, "key").stderr == "Invalid lifetime\n"


def test_verbosity(same: Same, ours: Same, person: Person) -> None:
    """What ssh-add tells of its own doing, without the names of its C functions."""
    public = person.key("key", "-t", "ed25519", passphrase="geheim").with_suffix(".pub")
    person.file("known", f"@cert-authority alpha {public.read_text()}\nalpha ssh-rsa x\n")
    told = same("-v", "-q", "key", input="geheim\n").stderr
    assert told == "debug1: stdin is not a tty\nEnter passphrase for key: "
    words = ("-vv", "-H", "known", "-H", "missing", "-h", "alpha>root@alpha", "key")
    told = same(*words, input="geheim\n").stderr
    assert "debug2: constraint 0: alpha (1 keys) > root@alpha (1 keys)\n" in told
    assert "debug1: known:3: parse error in hostkeys file\n" in told
    assert "debug3: found ca key type ED25519 in file known:1" in ours("-vvv", *words).stderr


def test_default_files(person: Person, agents: tuple[Agent, Agent]) -> None:
    """In the home that the user database tells, so each program gets one of its own there."""
    (person.home / ".ssh").mkdir(mode=0o700)
    for name, options in (("id_rsa", RSA), ("id_ed25519", ("-t", "ed25519"))):
        person.key(f".ssh/{name}", *options)
    known = (person.home / ".ssh/id_rsa.pub").read_text()
    person.file(".ssh/known_hosts", f"alpha {known}")
    person.file(".ssh/known_hosts2", f"beta {known}")

    told = Path(pwd.getpwuid(0).pw_dir)
    keep = ":"
    if CHECKOUT.is_relative_to(told):  # kagent-add's code mustn't be hidden by that
        copy = f'"$HOME/{CHECKOUT.relative_to(told)}"'
        keep = f'mkdir -p {copy} && mount --bind "{CHECKOUT}" {copy}'

    def same(*words: str) -> subprocess.CompletedProcess[str]:
        place = f'{keep}; mount --rbind "$HOME" "{told}" && exec "$0" "$@"'
        namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", place)
        theirs, ours = (
            one.run(*namespace, program, *words, check=False)
            for one, program in zip(agents, ("ssh-add", "kagent-add"), strict=True)
        )
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
        assert ours.stderr == theirs.stderr
        return ours

    assert same("-h", "alpha").stderr.count("Identity added") == 2
    assert same("-h", "beta>alpha", "-q").returncode == 0
    assert "No host keys found" in same("-h", "gamma").stderr
    assert same("-d").returncode == 0
    person.file(".ssh/id_ecdsa", "", mode=0o644)
    assert same().returncode == 1
    for name in ("id_rsa", "id_rsa.pub", "id_ecdsa", "id_ed25519", "id_ed25519.pub"):
        (person.home / ".ssh" / name).unlink()
    assert same().returncode == 1


@pytest.mark.parametrize("place", ["", "/nowhere"])
def test_no_agent(agents: tuple[Agent, Agent], place: str) -> None:
    """As ssh-add has it; then what to do."""
    theirs, ours = (
        agents[0].run(program, "-l", check=False, SSH_AUTH_SOCK=place)
        for program in ("ssh-add", "kagent-add")
    )
    assert (ours.returncode, theirs.returncode) == (2, 2)
    told = ours.stderr.removeprefix(theirs.stderr)
    assert told.startswith("kagent-add: to have one, `kagentctl install`")
