"""The front's start, by the keeper.

python -m kagent.agent LISTENER CONTROL SIGNING LOGIN PRIVATE [debug] [stderr]: the first three are
sockets, the next two keyrings.
"""

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
    from ..custody.rings import Rings
    from ..keyctl import Keyring
    from .server import serve

    descriptors, serials, words = sys.argv[1:4], sys.argv[4:6], sys.argv[6:]
    log.configure(to_stderr="stderr" in words, verbose="debug" in words)
    rings = Rings(*(Keyring(int(serial)) for serial in serials))
    rings.enter()
    listener, control, signing = (socket.socket(fileno=int(number)) for number in descriptors)
    trio.run(serve, rings, listener, control, signing)


_main()
