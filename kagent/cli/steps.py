"""What to do where something was refused, for each cause: a command to type, and what it does.

Capitals in a command stand for what only the user knows.  Nothing that others have named is ever
in one: what is to be typed must not be theirs to say.
"""

from __future__ import annotations

from typing import NamedTuple

from ..protocol.refusals import Cause


class Step(NamedTuple):
    """What to type next, and why."""

    command: str
    why: str


_LOAD = "ssh-add KEYFILE"
_LOG = "kagentctl log"
_DOCTOR = "kagentctl doctor"
_AGAIN = "three seconds after that it may be tried again"

STEPS = {
    Cause.LOCKED: Step(
        "ssh-add -X",
        "unlocks the agent, with the passphrase that locked it",
    ),
    Cause.WRONG_PASSPHRASE: Step(
        "ssh-add -X",
        "asks for the passphrase again; each wrong one has to wait longer. If it is "
        "forgotten, end the agent (systemctl --user stop kagent.service): "
        "sealed keys and ones with constraints end with it",
    ),
    Cause.NO_PASSPHRASE: Step(
        "ssh-add -x",
        "asks for a passphrase, which can't be empty, and locks the agent with it",
    ),
    Cause.NOT_LOCKED: Step(
        "ssh-add -l",
        "the agent works; this lists its keys",
    ),
    Cause.UNKNOWN_KEY: Step(
        _LOAD,
        "loads it. ssh-add -l lists the keys that are there; who loads none after each login "
        "may have kagentctl install --autoload do it",
    ),
    Cause.EXPIRED: Step(
        "ssh-add -t 8h KEYFILE",
        "loads it again, for eight hours; without -t it has no end",
    ),
    Cause.UNUSED: Step(
        "kagent-add --idle 8h KEYFILE",
        "loads it again, until it isn't used for eight hours; without --idle it stays",
    ),
    Cause.REMOVED: Step(
        _LOAD,
        "loads it again; kagentctl log tells when it was removed",
    ),
    Cause.CHANGED: Step(
        "ssh-add -l",
        "while the request waited, the key was removed or loaded anew; this lists what is "
        "there. Then try again",
    ),
    Cause.DENIED: Step(
        _LOG,
        "you, or the program that asks you, said no. If you didn't start what asked, this "
        "shows what else it asked for; if it was by mistake, try again",
    ),
    Cause.UNANSWERED: Step(
        _LOG,
        "shows who asked and went away, or wasn't answered in two minutes. Try again, and "
        "look for a window with a question that hides behind others",
    ),
    Cause.CANNOT_ASK: Step(
        "systemctl --user import-environment DISPLAY WAYLAND_DISPLAY",
        "tells systemd where your windows are; then systemctl --user restart kagent.service, "
        "and load what ended with it. Where there are no windows, ssh-add KEYFILE asks for a "
        "passphrase on your terminal",
    ),
    Cause.NO_ASKPASS: Step(
        "sudo apt-get install ssh-askpass",
        "installs the program that asks you, on Debian. SSH_ASKPASS names another to an agent that "
        "is started with it; ssh-add KEYFILE asks for a passphrase on your terminal",
    ),
    Cause.NO_HOST: Step(
        "ssh -V",
        "the key is for some hosts only, and what asked didn't say for which. ssh says so "
        "since version 8.9, on this machine and on those between; what isn't ssh needs a key "
        "that is loaded without -h",
    ),
    Cause.NO_LOGIN: Step(
        _LOAD,
        "loads it without -h: a key for some hosts only makes no other signatures",
    ),
    Cause.OTHER_HOST: Step(
        "kagentctl show",
        "shows for which hosts and users each key may be used. ssh-add -h HOST KEYFILE loads "
        "it for others",
    ),
    Cause.UNPROVEN: Step(
        "ssh -v HOST",
        "a host that the connection leads through has not proved who it is; this shows which. "
        "A new connection begins anew",
    ),
    Cause.BINDING: Step(
        "ssh -v HOST",
        "shows what the connection is bound to. A new one begins anew; leave out a host "
        "between, or ControlMaster, if it happens again",
    ),
    Cause.FROM_AFAR: Step(
        "kagentctl show",
        "on the machine where kagent runs: other hosts may neither see nor do that",
    ),
    Cause.WEB: Step(
        "kagent -O websafe-allow=PATTERN",
        "has an agent let FIDO keys for the web sign what isn't for ssh; -O no-restrict- "
        "websafe for all of them",
    ),
    Cause.MALFORMED: Step(
        _LOG,
        "what was sent is damaged, or of no use; this shows what else that program asked for",
    ),
    Cause.UNSUPPORTED: Step(
        "kagentctl --version",
        "shows this version, which doesn't know what was asked for; ssh-agent may not either. "
        "Mostly the program that asked goes on without",
    ),
    Cause.FLAGS: Step(
        "kagentctl --version",
        "shows this version, which doesn't know the kind of signature that was asked for",
    ),
    Cause.INTERRUPTED: Step(
        _LOAD,
        "loads it again: its program had ended before all was sent",
    ),
    Cause.OTHER_USER: Step(
        "kagentctl share KEY --with USER",
        "lets another user sign with a key; the agent itself serves you and root only",
    ),
    Cause.KEY_TYPE: Step(
        "ssh-keygen -t ed25519",
        "makes a key of a type that kagent holds; kagent(7) says which it doesn't",
    ),
    Cause.LIBRARY: Step(
        _DOCTOR,
        "says which libraries that kind of key takes. Debian's package of kagent uses Debian's; "
        "pipx brings the newest",
    ),
    Cause.INVALID_KEY: Step(
        "ssh-keygen -y -f KEYFILE",
        "shows whether OpenSSH can read the key: it is damaged, or its halves don't fit each other",
    ),
    Cause.CERTIFICATE: Step(
        "ssh-keygen -L -f KEYFILE-cert.pub",
        "shows the certificate, which isn't good, or isn't for this key",
    ),
    Cause.SOURCE: Step(
        "kagentctl check",
        "tells whether kagent.toml is as it should be, which says where the key comes from. If it "
        f"is, try again: {_AGAIN}",
    ),
    Cause.SOURCE_PASSPHRASE: Step(
        "ssh-keygen -y -f KEYFILE",
        "asks for the key file's passphrase too, and says whether it is right. kagent asks for it "
        "anew when the key is needed again, three seconds after a wrong one or none",
    ),
    Cause.SOURCE_FILE: Step(
        "kagentctl check",
        "tells which files that kagent.toml names are not there. If one has moved, kagentctl "
        "forget-source KEY and kagentctl remember KEYFILE write where it is now",
    ),
    Cause.SOURCE_OPEN: Step(
        "chmod go= KEYFILE",
        f"has nobody else read the key file, which ssh wouldn't take either; {_AGAIN}",
    ),
    Cause.SOURCE_COMMAND: Step(
        "kagentctl check",
        "tells which commands that kagent.toml names are not there. If all are, type this one to "
        "see what it says: it must print the key, or the passphrase, and end with 0",
    ),
    Cause.SOURCE_FORWARDED: Step(
        _LOAD,
        "on this machine, loads it for requests from other hosts too. forwarded = true in its "
        "[[identity]] of kagent.toml has it fetched for them",
    ),
    Cause.RENEWAL: Step(
        "kagentctl check",
        "tells whether kagent.toml is as it should be, where the command stands that prints the "
        "certificate: type that command to see why it prints none. The next list of keys after a "
        "minute has it run again",
    ),
    Cause.CONSTRAINT: Step(
        _LOAD,
        "loads it without that constraint, which this version can't keep",
    ),
    Cause.LIFETIME: Step(
        "ssh-add -t 8h KEYFILE",
        "loads it for eight hours",
    ),
    Cause.CUSTODY: Step(
        "kagent-add KEYFILE",
        "loads it as the agent was told to hold keys; kagent --custody, when it is started, "
        "says otherwise",
    ),
    Cause.KERNEL_SIGNS_NOT: Step(
        "kagent-add --custody sealed KEYFILE",
        "holds it sealed; kagentctl doctor says with which keys this kernel signs",
    ),
    Cause.NO_PROVIDER: Step(
        "ssh-add -S PROVIDER KEYFILE",
        "names the library that talks to a FIDO token; ssh-add -s PROVIDER that of a PKCS#11 "
        "token. It must be there: ls -l PROVIDER",
    ),
    Cause.PROVIDER: Step(
        "kagent -P 'PATTERN,PATTERN'",
        "has an agent take libraries from elsewhere than /usr/lib* and /usr/local/lib*. A "
        "library gets the PIN: name no folder that others can write to",
    ),
    Cause.REMOTE_PROVIDER: Step(
        "kagent -O allow-remote-pkcs11",
        "has an agent take libraries that other hosts name; safer is ssh-add -s PROVIDER on "
        "the machine where kagent runs",
    ),
    Cause.HELPER: Step(
        _DOCTOR,
        "says what is missing; the helper comes with OpenSSH's client programs",
    ),
    Cause.PIN: Step(
        "ssh-add -s PROVIDER",
        "asks for the PIN of a PKCS#11 token again; a FIDO token's is asked for at the next "
        "try. A few wrong ones lock it: the token's own program says how many are left "
        "(pkcs15-tool, ykman)",
    ),
    Cause.TOKEN: Step(
        _LOG,
        "has OpenSSH's own line beside it, which says what the token didn't do. Is it plugged "
        "in, was it touched?",
    ),
    Cause.TOKEN_GONE: Step(
        "ssh-add -s PROVIDER",
        "loads its keys again; ssh-add -e before is not needed",
    ),
    Cause.HELD_ALREADY: Step(
        "ssh-add -d KEYFILE",
        "removes the key of the token that is held already, in another way; then load the "
        "token again",
    ),
    Cause.BEHIND: Step(
        "SSH_AUTH_SOCK=SOCKET ssh-add -l",
        "asks the agent behind kagent itself, whose socket kagentctl show names",
    ),
    Cause.ELSEWHERE: Step(
        "SSH_AUTH_SOCK=SOCKET ssh-add -d KEYFILE",
        "removes it from the agent behind kagent that has it",
    ),
    Cause.LOOP: Step(
        "systemctl --user stop kagent.service",
        "ends an agent of a circle of agents, each behind another; start it without --behind",
    ),
    Cause.CONFIGURED: Step(
        "kagentctl show",
        "shows it among the keys that are fetched when they are needed, by what kagent- "
        "provision(8) is configured with; they can't be removed with ssh-add",
    ),
    Cause.FETCH: Step(
        "sudo kagent-provision check",
        "fetches each configured key, and says what is wrong",
    ),
    Cause.TOO_MANY: Step(
        "ssh-add -D",
        "removes all keys, if that many aren't needed; or wait until others are done",
    ),
    Cause.QUOTA: Step(
        "sudo sysctl kernel.keys.maxkeys=2000 kernel.keys.maxbytes=200000",
        "gives each user more room for kernel keys; kagentctl status says how much is left",
    ),
    Cause.USED_UP: Step(
        "ps -u $USER -o pid,nlwp,rss,args --sort -rss",
        "shows your programs: one of them has used up memory, processes or open files, those on "
        "their way through sockets too. When it has ended, try again",
    ),
    Cause.KERNEL: Step(
        _DOCTOR,
        "says what of the kernel is missing, and what mends it",
    ),
    Cause.STILL_THERE: Step(
        "kagentctl show",
        "shows the keys that are still there, and whose they are; when what the reason tells of is "
        "over, ssh-add -D removes them",
    ),
    Cause.FAULT: Step(
        _LOG,
        "a process of kagent's has ended that should not have; this shows its last words",
    ),
}
# What to do instead where the agent isn't systemd's.
BY_HAND = {
    Cause.WRONG_PASSPHRASE: Step(
        "ssh-add -X",
        "asks for the passphrase again; each wrong one has to wait longer. If it is "
        "forgotten, end the agent with kagent -k: sealed keys and ones with constraints end with "
        "it",
    ),
    Cause.CANNOT_ASK: Step(
        'eval "$(kagent -s)"',
        "starts another agent, in a terminal of your desktop: an agent goes by DISPLAY, "
        "WAYLAND_DISPLAY and SSH_ASKPASS as they were when it was started. kagent -k before ends "
        "this one. Where there are no windows, ssh-add KEYFILE asks for a passphrase on your "
        "terminal",
    ),
    Cause.LOOP: Step(
        "kagent -k",
        "ends an agent of a circle of agents, each behind another; start it without --behind",
    ),
}
# Of another version of kagent, which has causes of its own.
OTHERWISE = Step(_LOG, "shows what else was refused")


def step_for(cause: str, *, by_hand: bool = False) -> Step:
    """What to do about a cause that an agent has told of, which was started `by_hand` or not."""
    try:
        known = Cause(cause)
    except ValueError:
        return OTHERWISE
    return (by_hand and BY_HAND.get(known)) or STEPS[known]
