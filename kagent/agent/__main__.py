"""The front's start: python -m kagent.agent LISTENER CONTROL [debug] [stderr], by the keeper."""

import signal
import sys

from .. import confine

# Before the slow imports: from here on nobody can attach to this process.
confine.forbid_inspection()
confine.forbid_new_privileges()
confine.die_with_parent()
confine.set_name("kagent-front")
signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the keeper


def _main() -> None:
    import socket

    import trio

    from .. import log
    from .server import serve

    listener, control, *words = sys.argv[1:]
    log.configure(to_stderr="stderr" in words, verbose="debug" in words)
    trio.run(serve, socket.socket(fileno=int(listener)), socket.socket(fileno=int(control)))


_main()
