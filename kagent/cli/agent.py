"""kagent: ssh-agent's command line."""

from __future__ import annotations

import os
import re
import signal
import sys

from .. import __version__, confine, log
from ..confine import seccomp
from ..custody.identity import Custody
from ..keeper.listener import ENDING, Listener, remove_stale
from ..keyctl import KernelKeyError, session_keyring
from .options import fail, parse
from .times import seconds

_USAGE = """\
usage: kagent [-c | -s] [-DdTU] [-a bind_address] [-E fingerprint_hash]
              [-O option] [-P allowed_providers] [-t life]
              [--custody kernel | sealed]
       kagent [-TU] [-a bind_address] [-E fingerprint_hash] [-O option]
              [-P allowed_providers] [-t life] [--custody kernel | sealed]
              command [arg ...]
       kagent [-c | -s] -k
       kagent -u
       kagent -V
"""
_NOT_YET = {"-O", "-P"}
_HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")


def main() -> int:
    """The console script; its exit code."""
    options = _Options(sys.argv[1:])
    if options.version:
        sys.stderr.write(f"kagent {__version__}\n")
        return 0
    if options.kill:
        return _kill(options.csh)
    if options.clean:
        remove_stale(of_all_hosts=options.clean > 1)
        print("Deleted stale agent sockets in ~/.ssh/agent")
        return 0
    log.configure(to_stderr=True, verbose=options.debug)
    # From the moment when there is a socket until the keeper can clean it up.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    listener = _listen(options)
    if options.foreground:
        print(_assignment("SSH_AUTH_SOCK", _quoted(listener.path), options.csh))
        print(f"echo Agent pid {os.getpid()};", flush=True)
        return _keep(listener, options)
    return _start_in_background(listener, options)


class _Options:
    """The command line, checked as ssh-agent checks it."""

    def __init__(self, arguments: list[str]) -> None:
        given, self.command = parse(arguments, "cDdksTuUVE:a:O:P:t:", _USAGE, ["custody="])
        values = dict(given)
        self.custody = _custody(values.get("--custody"))
        self.fingerprint_hash = values.get("-E", "sha256").lower()
        if self.fingerprint_hash not in _HASHES:
            fail(f'Invalid hash algorithm "{values["-E"]}"', 255)
        self.lifetime = _lifetime(values.get("-t"))
        letters = [letter for letter, _ in given]
        for letter in letters:
            if letter in _NOT_YET:
                fail(f"kagent: {letter} is not supported yet; nothing was started")
        self.address = values.get("-a")
        self.csh = "-c" in letters
        self.debug = "-d" in letters
        self.foreground = self.debug or "-D" in letters
        self.kill = "-k" in letters
        self.in_tmp = "-T" in letters
        self.keep_stale = "-U" in letters
        self.clean = letters.count("-u")
        self.version = "-V" in letters
        if (self.csh and "-s" in letters) or letters.count("-d") + letters.count("-D") > 1:
            fail(_USAGE, end="")
        if self.command and {"-c", "-k", "-s", "-d", "-D", "-u"}.intersection(letters):
            fail(_USAGE, end="")
        if not self.command and "-s" not in letters:
            self.csh = self.csh or os.environ.get("SHELL", "").endswith("csh")


def _custody(name: str | None) -> Custody | None:
    try:
        return Custody(name) if name is not None else None
    except ValueError:
        fail(f"kagent: --custody takes {' or '.join(Custody)}, not {name!r}")


def _lifetime(text: str | None) -> int:
    try:
        return seconds(text) if text is not None else 0
    except ValueError:
        fail(f"Invalid lifetime\n{_USAGE}", end="")


def _assignment(name: str, value: str, csh: bool) -> str:
    return f"setenv {name} {value};" if csh else f"{name}={value}; export {name};"


def _quoted(path: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./-]+", path, re.ASCII):
        return path
    import shlex

    return shlex.quote(path)


def _kill(csh: bool) -> int:
    text = os.environ.get("SSH_AGENT_PID")
    if text is None:
        fail("SSH_AGENT_PID not set, cannot kill agent")
    try:
        pid = int(text, 10)
    except ValueError:
        pid = None
    if pid is None or not 2 <= pid < 2**31:
        why = "invalid" if pid is None else "too small" if pid < 2 else "too large"
        fail(f'SSH_AGENT_PID="{text}", which is not a good PID: {why}')
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        fail(f"kill: {error.strerror}")
    unset = "unsetenv" if csh else "unset"
    print(f"{unset} SSH_AUTH_SOCK;\n{unset} SSH_AGENT_PID;\necho Agent pid {pid} killed;")
    return 0


def _listen(options: _Options) -> Listener:
    try:
        # Asked before anything is started, so that the user is told here and not in a log.
        session_keyring()
        seccomp.library()
        if options.address is not None:
            return Listener(options.address)
        if options.in_tmp:
            return Listener.in_tmp()
        if not options.keep_stale:
            remove_stale(of_all_hosts=False)
        return Listener.in_home()
    except (KernelKeyError, seccomp.CannotConfine) as error:
        fail(f"kagent: {error}")
    except OSError as error:
        place = options.address or "the agent's socket"
        fail(f"kagent: cannot bind to {place}: {error.strerror or error}")


def _start_in_background(listener: Listener, options: _Options) -> int:
    parent = os.pidfd_open(os.getpid()) if options.command else None
    agent = os.fork()
    if agent == 0:
        # The command's process is this one's parent, and stays so over the exec.
        _enter_background()
        code = _keep(listener, options, command=parent)
        os._exit(code)
    listener.socket.close()
    if not options.command:
        print(_assignment("SSH_AUTH_SOCK", _quoted(listener.path), options.csh))
        print(_assignment("SSH_AGENT_PID", str(agent), options.csh))
        print(f"echo Agent pid {agent};")
        return 0
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    os.environ["SSH_AUTH_SOCK"] = listener.path
    os.environ["SSH_AGENT_PID"] = str(agent)
    try:
        os.execvp(options.command[0], options.command)  # noqa: S606, the user's own command
    except OSError as error:
        fail(f"{options.command[0]}: {error.strerror}")


def _enter_background() -> None:
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    log.configure(to_stderr=False, verbose=False)


def _keep(listener: Listener, options: _Options, command: int | None = None) -> int:
    from ..custody.rings import KeeperRings
    from ..keeper.keeper import Keeper
    from ..keeper.policy import Policy

    confine.forbid_inspection()
    confine.set_name("kagent-keeper")
    front_options = [options.fingerprint_hash]
    if options.foreground:
        front_options.append("stderr")
    if options.debug:
        front_options.append("debug")
    try:
        rings = KeeperRings.enter()
        keeper = Keeper(
            listener.socket, rings, Policy(options.custody, options.lifetime), front_options
        )
        return keeper.run(ignore_interrupt=not options.foreground, command=command)
    except KernelKeyError as error:
        log.error(f"no keyrings for the agent: {error}")
        return 1
    finally:
        listener.remove()


if __name__ == "__main__":
    sys.exit(main())
