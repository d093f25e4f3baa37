"""What kagentctl says of install, uninstall, status and log."""

INSTALL = """\
Makes kagent your agent: writes the units kagent.socket and kagent.service to ~/.config/systemd/user
and enables the socket, which sets SSH_AUTH_SOCK for all that your systemd starts from then on:
graphical programs and the terminals in them.  Logins by ssh and on the console get it from PAM; see
kagent(1) for the line that an administrator adds.

kagent starts with the first request and ends a minute after the last one, unless it holds keys
that would be lost.  Says what it did, and which other agents want to be SSH_AUTH_SOCK too."""
UNINSTALL = """\
Stops kagent and removes the units that install has written.  Your key files were only read."""
STATUS = """\
How the agent at SSH_AUTH_SOCK is: since when it runs, its keys by custody, what it has signed since
then, the last refusal, questions that wait for you, whether it ends when idle, and its memory.  An
agent that is not running is not woken."""
LOG = """\
A line for each signature and each refusal, from the journal: what for, by whom, with which key.
journalctl shows it, and so decides on colours and pages."""
FORGET = """\
Destroys the keys that kagent holds in your user keyring, without asking it, as kagent.socket does
when your systemd ends: after your last logout, or never before a reboot if you linger."""
