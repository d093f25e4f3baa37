"""kagent: ssh-agent's command line."""

from __future__ import annotations

import errno
import io
import os
import pwd
import re
import signal
import socket
import stat
import sys
from contextlib import redirect_stderr
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__, log
from ..configuration.settings import configured
from ..configuration.toml import files
from ..confine import process, seccomp
from ..keeper import foreground
from ..keeper.listener import (
    ENDING,
    USUAL,
    Listener,
    NoPlace,
    home_directory,
    remove_stale,
    turn_away_waiting,
)
from ..keyctl import (
    PROCESS_KEYRING,
    KernelKeyError,
    Keyring,
    SessionUnusable,
    session_keyring,
)
from .command import OutputLost, become, command
from .options import fail, one_of, parse

if TYPE_CHECKING:
    from ..protocol.constraints import Constraint

_USAGE = """\
usage: kagent [-c | -s] [-DdU] [-T | -A directory | -a bind_address]
              [-E fingerprint_hash] [-O option] [-P allowed_providers]
              [-t life]
              [--custody kernel | sealed]
              [--keyring session | user | persistent | private]
              [--burst milliseconds] [--idle-exit life]
              [--behind socket] [--confirm-behind always | forwarded]
       kagent [-U] [-T | -A directory | -a bind_address]
              [-E fingerprint_hash] [-O option] [-P allowed_providers]
              [-t life] [--custody kernel | sealed]
              [--keyring session | user | persistent | private]
              [--burst milliseconds] [--behind socket]
              [--confirm-behind always | forwarded] command [arg ...]
       kagent [-c | -s] -k
       kagent -u
       kagent -V
"""
_FATAL = 255  # OpenSSH's exit code for a command line that makes no sense
_CUSTODIES = ("kernel", "sealed")
_KEYRINGS = ("session", "user", "persistent", "private")
_CONFIRM_BEHIND = ("always", "forwarded")
_WORDS = ("behind", "burst", "confirm-behind", "custody", "idle-exit", "keyring")
_PLACES = {"-A", "-a", "-T"}
# What a service of a user's has in common with that user's other programs, and how long it waits.
_SERVICE_KEYRING, _SERVICE_IDLE_EXIT = "user", "60s"
_LONGEST_SOCKET = 107  # bytes: unix(7)
_READY = b"\0"
_HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")


def main() -> NoReturn:
    """The program, to its end."""
    command("kagent", _main)


def _main() -> int:
    by_systemd = os.environ.get("LISTEN_PID") == str(os.getpid())
    try:
        return _start()
    except SystemExit as end:
        if by_systemd and end.code:
            turn_away_waiting()
        raise


def _start() -> int:
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
    _tell_of_identities()
    # From the moment when there is a socket until the keeper can clean it up.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    listener = _listen(options)
    _look_behind(options, listener)
    if listener.lent:
        return foreground.run(listener, partial(_keep, listener, options))
    if options.asks_for_idle_exit:
        listener.remove()
        fail("kagent: --idle-exit needs a socket that stays when kagent ends: systemd's")
    if options.foreground:
        print(_assignment("SSH_AUTH_SOCK", _quoted(listener.path), options.csh))
        print(f"echo Agent pid {os.getpid()};", flush=True)
        return foreground.run(listener, partial(_keep, listener, options))
    return _start_in_background(listener, options)


class _Options:
    """The command line, checked as ssh-agent checks it."""

    def __init__(self, arguments: list[str]) -> None:
        words = [f"{name}=" for name in _WORDS]
        given, self.command = parse(arguments, "cDdksTuUVE:A:a:O:P:t:", _USAGE, words)
        letters = [letter for letter, _ in given]
        self.asks_for_idle_exit = "--idle-exit" in letters
        if not {"-k", "-u", "-V"}.intersection(letters):
            given = _configured(given) + given
            letters = [letter for letter, _ in given]
        values = dict(given)
        self.custody = _one_of("--custody", _CUSTODIES, values.get("--custody"))
        self.keyring = _one_of("--keyring", _KEYRINGS, values.get("--keyring")) or ""
        self.fingerprint_hash = values.get("-E", "sha256").lower()
        if self.fingerprint_hash not in _HASHES:
            fail(f'Invalid hash algorithm "{values["-E"]}"', _FATAL)
        self.lifetime = _lifetime(values.get("-t"))
        self.burst = _burst(values.get("--burst"))
        self.idle_exit = _lifetime(values.get("--idle-exit", _SERVICE_IDLE_EXIT))
        self.behind = _behind(given)
        confirm = values.get("--confirm-behind")
        self.confirm_behind = _one_of("--confirm-behind", _CONFIRM_BEHIND, confirm)
        if confirm and not self.behind:
            fail("kagent: --confirm-behind is of no use without --behind")
        self.providers = _providers(given)
        self.web_safety = _web_safety(given)
        self.address = values.get("-a")
        if self.address == "":  # the kernel would choose a name that nobody is told: unix(7)
            fail("kagent: -a takes the path of the socket that is to be made, not ''")
        self.directory = _directory(values["-A"]) if "-A" in letters else None
        self.csh = "-c" in letters
        self.debug = "-d" in letters
        self.foreground = self.debug or "-D" in letters
        self.kill = "-k" in letters
        self.in_tmp = "-T" in letters
        self.keep_stale = "-U" in letters
        self.clean = letters.count("-u")
        self.version = "-V" in letters
        if len({"-T", "-A", "-a"}.intersection(letters)) > 1:
            fail(_USAGE, end="")
        if (self.csh and "-s" in letters) or letters.count("-d") + letters.count("-D") > 1:
            fail(_USAGE, end="")
        if self.command and {"-c", "-k", "-s", "-d", "-D", "-u"}.intersection(letters):
            fail(_USAGE, end="")
        if not self.command and "-s" not in letters:
            self.csh = self.csh or os.environ.get("SHELL", "").endswith("csh")


def why_not_started() -> str:
    """What kagent says instead of starting, given no options; empty if it starts.

    Not what is wrong with the files as such, of which configuration.settings tells.
    """
    if configured()[1]:
        return ""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            _Options([])
    except SystemExit:
        return said.getvalue().partition("\n")[0]
    return ""


def _configured(given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What the files say, but for what the command line says otherwise."""
    options, faults = configured()
    if faults:
        fail("\n".join(f"kagent: {fault}" for fault in faults))
    told = {option for option, _ in given}
    if told & _PLACES:
        told |= _PLACES
    names = {value.partition("=")[0] for option, value in given if option == "-O"}
    return [
        (option, value)
        for option, value in options
        if (value.partition("=")[0] not in names if option == "-O" else option not in told)
        or option == "--behind"
    ]


def _tell_of_identities() -> None:
    """What is wrong with one of them keeps no agent from starting: the others count."""
    if any(map(os.path.exists, files())):
        from ..configuration.identities import Identities

        for fault in Identities.read().faults:
            log.warning(str(fault))


def _one_of(option: str, names: tuple[str, ...], name: str | None) -> str | None:
    if name not in (None, *names):
        fail(f"kagent: {option} takes {one_of(names)}, not {name!r}")
    return name


def _providers(given: list[tuple[str, str]]) -> dict[str, Any]:
    """The arguments of device.Providers."""
    lists = [value for letter, value in given if letter == "-P"]
    if len(lists) > 1:
        fail("-P option already specified", _FATAL)
    allowed = {"allowed": lists[0]} if lists else {}
    return {**allowed, "remote": ("-O", "allow-remote-pkcs11") in given}


def _directory(place: str) -> tuple[str, str]:
    """Where to make the socket: "user" or "shared", and which directory."""
    kind, _, path = place.partition(":")
    if kind not in ("user", "shared"):
        fail(f"kagent: -A takes user:DIRECTORY or shared:DIRECTORY, not {place!r}", _FATAL)
    path = os.path.expanduser(re.sub("%(.?)", _expanded, path))
    if kind == "shared" and not path.startswith("/"):
        fail(f"kagent: -A shared: takes an absolute path, not {path!r}", _FATAL)
    return kind, path


def _expanded(token: re.Match[str]) -> str:
    """Those of sshd_config(5), AgentSocketPath."""
    match token[1]:
        case "%":
            return "%"
        case "U":
            return str(os.getuid())
        case "h" | "u":
            try:
                return home_directory() if token[1] == "h" else pwd.getpwuid(os.getuid()).pw_name
            except NoPlace as error:
                fail(f"kagent: -A {token[0]}: {error}", _FATAL)
            except KeyError:
                fail(f"kagent: -A {token[0]}: there is no user of uid {os.getuid()}", _FATAL)
    fail(f"kagent: -A: unknown {token[0]}; it takes %h, %u, %U and %%", _FATAL)


def _web_safety(given: list[tuple[str, str]]) -> dict[str, Any]:
    """The arguments of device.WebSafety."""
    lists = []
    for option in (value for letter, value in given if letter == "-O"):
        if option.startswith("websafe-allow="):
            lists.append(option.removeprefix("websafe-allow="))
        elif option not in ("no-restrict-websafe", "allow-remote-pkcs11"):
            fail("Unknown -O option", _FATAL)
    if len(lists) > 1:
        fail("websafe-allow already set", _FATAL)
    allowed = {"allowed": lists[0]} if lists else {}
    return {**allowed, "restricted": ("-O", "no-restrict-websafe") not in given}


def _lifetime(text: str | None) -> int:
    if text is None:
        return 0
    from ..openssh.times import seconds

    try:
        return seconds(text)
    except ValueError:
        fail(f"Invalid lifetime\n{_USAGE}", end="")


def _burst(text: str | None) -> dict[str, int]:
    """The argument of terms.Terms."""
    if text is None:
        return {}
    if re.fullmatch(r"0*\d{1,2}|100", text, re.ASCII) is None:
        fail(f"kagent: --burst takes milliseconds, 0 to 100, not {text!r}")
    return {"burst": int(text) * 10**6}


def _behind(given: list[tuple[str, str]]) -> tuple[str, ...]:
    """The sockets of agents behind: absolute, since an agent in the background leaves its folder.

    None of them need be there yet.
    """
    paths = [value for option, value in given if option == "--behind"]
    for path in paths:
        if not path or len(os.fsencode(os.path.abspath(path))) > _LONGEST_SOCKET:
            fail(
                f"kagent: --behind takes the path of another agent's socket, of at most "
                f"{_LONGEST_SOCKET} bytes, not {path!r}"
            )
    return tuple(dict.fromkeys(map(os.path.abspath, paths)))


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
        passed = Listener.from_systemd()
        if not options.keyring:
            options.keyring = _SERVICE_KEYRING if passed else "session"
        _look_around(options)
        if passed:
            return passed
        if options.address is not None:
            return Listener(options.address)
        if options.in_tmp:
            # The directory that is made there is private.
            return Listener.shared(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
        kind, path = options.directory or ("user", USUAL)
        if kind == "shared":
            return Listener.shared(path)
        if not options.keep_stale:
            remove_stale(path)
        return Listener.of_user(path)
    except NoPlace as error:
        fail(f"kagent: {error}; kagent -T makes a socket in /tmp, and -a PATH one where you like")
    except OSError as error:
        place = options.address or "the agent's socket"
        taken = options.address if error.errno == errno.EADDRINUSE else None
        there = _what_is_there(taken) if taken else ""
        fail(f"kagent: cannot bind to {place}: {error.strerror or error}{there}")


def _what_is_there(path: str) -> str:
    """Of a path that something is at already: what that is, and what to do."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return "; that is another file: name a path where nothing is"
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(path)
    except ConnectionRefusedError:
        return f"; nobody listens there any more: rm {_quoted(path)}"
    except BlockingIOError:  # as many wait there as may
        pass
    except OSError:  # it can't be told, or is gone
        return ""
    mine = f"if that is your agent, SSH_AUTH_SOCK={_quoted(path)} is for it"
    return f"; a program listens there already: {mine}"


def _look_behind(options: _Options, listener: Listener) -> None:
    """By another name, or through another agent, kagent finds itself when it is asked."""
    own = os.path.abspath(listener.path)
    if own in options.behind:
        listener.remove()
        fail(f"kagent: --behind {own}: that is this kagent's own socket; leave it out")


def _look_around(options: _Options) -> None:
    """End here if it is known that an agent can't live, before there is anything of it."""
    try:
        # A write: a filter from outside may let a look through.
        own = Keyring.special(PROCESS_KEYRING, create=True)
        own.destroy(own.add("user", "kagent:probe", b"probe"))
        if options.keyring == "session":
            session_keyring()
        seccomp.check()
        attached = process.tracer()
    except SessionUnusable as error:
        fail(f"kagent: {error}; or take --keyring user, persistent or private")
    except (KernelKeyError, seccomp.CannotConfine) as error:
        fail(f"kagent: {error}")
    except OSError as error:
        fail(f"kagent: {error.filename}: {error.strerror}: /proc must be mounted")
    if attached:
        # Since before this process could forbid it: what it gets from now on is no secret.
        fail(f"kagent: process {attached} is attached to kagent, as a debugger is: end it first")


def _start_in_background(listener: Listener, options: _Options) -> int:
    starter = os.getpid()
    told, telling = os.pipe()
    agent = os.fork()
    if agent == 0:
        os.close(told)
        _enter_background()
        log.tell_too(telling)
        if options.command:
            # Its process is this one's parent, and stays so over the exec.
            process.die_with_parent(signal.SIGTERM)
        if os.getppid() != starter:
            listener.remove()
            os._exit(1)
        os._exit(_keep(listener, options, partial(_tell_starter, telling)))
    os.close(telling)
    listener.socket.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    _wait_for(agent, told, listener)
    if options.command:
        os.environ["SSH_AUTH_SOCK"] = listener.path
        os.environ["SSH_AGENT_PID"] = str(agent)
        try:
            become(options.command)
        except OSError as error:
            fail(f"{options.command[0]}: {error.strerror}")
    try:
        print(_assignment("SSH_AUTH_SOCK", _quoted(listener.path), options.csh))
        print(_assignment("SSH_AGENT_PID", str(agent), options.csh))
        print(f"echo Agent pid {agent};", flush=True)
    except OutputLost:
        # Nobody would know of it.
        os.kill(agent, signal.SIGTERM)
        os.waitpid(agent, 0)
        raise
    return 0


def _wait_for(agent: int, told: int, listener: Listener) -> None:
    """Wait until the agent serves; ends the program, with what the agent says, if it can't."""
    said = b""
    while not said.endswith(_READY):
        chunk = os.read(told, 4096)
        if not chunk:
            if os.WIFSIGNALED(os.waitpid(agent, 0)[1]):
                listener.remove()  # else the agent has done so
            why = said.decode() or "kagent: it ended while it started; the system's log may say why"
            fail(why, end="")
        said += chunk
    os.close(told)


def _tell_starter(telling: int, state: str) -> None:
    """Let the command go on that waits for this agent, once it serves."""
    if state != foreground.READY:
        return
    log.tell_too(None)
    try:
        os.write(telling, _READY)
    except BrokenPipeError:
        os.kill(os.getpid(), signal.SIGTERM)  # it was ended meanwhile: nobody knows of this agent
    os.close(telling)


def _enter_background() -> None:
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    log.configure(to_stderr=False, verbose=False)


def _keep(listener: Listener, options: _Options, tell: foreground.Tell) -> int:
    """The keeper's life, in a fork: no other process could ever open its memory."""
    # Late, as all of this is: what only prints or starts a command should be quick.
    from ..custody.device import Providers, WebSafety
    from ..custody.identity import Custody
    from ..custody.rings import KeeperRings, Place
    from ..front import life
    from ..front.settings import Settings
    from ..jobs.terms import Terms
    from ..keeper.keeper import Keeper

    if options.behind:
        from ..front import behind  # noqa: F401, here, since the front can't do it any more

    process.forbid_core_dumps()
    log.never_wait()
    process.set_name("kagent-keeper")
    terms = Terms(
        Custody(options.custody) if options.custody else None,
        options.lifetime,
        Providers(**options.providers),
        **options.burst,
        behind=options.behind,
    )
    settings = Settings(
        options.fingerprint_hash,
        WebSafety(**options.web_safety),
        options.idle_exit if listener.lent else 0,
        options.behind,
        _confirm_behind(options),
    )
    code = 1
    try:
        keeper = Keeper(
            listener.socket,
            KeeperRings.enter(Place(options.keyring)),
            terms,
            partial(life.run, settings),
            tell,
        )
        to_stderr = options.foreground or listener.lent
        # A service that is stopped has not failed.
        code = keeper.run(ignore_interrupt=not to_stderr, stopped=0 if listener.lent else 2)
    except KernelKeyError as error:
        log.error(f"no keyrings for the agent: {error}")
    except OSError as error:
        log.error(f"the agent can't go on: {error}")
    finally:
        listener.remove()
        if code == 1 and listener.lent:
            turn_away_waiting(listener.socket.fileno())
    return code


def _confirm_behind(options: _Options) -> tuple[Constraint, ...]:
    """The constraints under which keys of agents behind are used."""
    from ..protocol.constraints import Confirm, ConfirmForwarded

    match options.confirm_behind:
        case "always":
            return (Confirm(),)
        case "forwarded":
            return (ConfirmForwarded(),)
    return ()


if __name__ == "__main__":
    main()
