"""The front's start, by the keeper.

python -m kagent.agent LISTENER CONTROL SIGNING LOGIN PRIVATE SETTING…

The first three are sockets, the next two keyrings, the rest is as Settings has it.
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
    from .settings import Settings

    descriptors, serials = sys.argv[1:4], sys.argv[4:6]
    settings = Settings.of(sys.argv[6:])
    log.configure(to_stderr=settings.to_stderr, verbose=settings.verbose)
    rings = Rings(*(Keyring(int(serial)) for serial in serials))
    rings.enter()
    listener, control, signing = (socket.socket(fileno=int(number)) for number in descriptors)
    trio.run(serve, rings, listener, control, signing, settings)


_main()
