"""The front's start, by the keeper.

python -m kagent.agent LISTENER CONTROL SIGNING RING… SETTING…

The first three are sockets, the next five are as Rings has them, the rest is as Settings has it.
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
    from ..confine import profiles
    from ..confine.seccomp import CannotConfine
    from ..custody.rings import Rings
    from ..keeper.jobs import IDLE
    from .server import serve
    from .settings import Settings
    from .tally import Tally

    descriptors, rings = sys.argv[1:4], Rings.of(sys.argv[4:9])
    settings = Settings.of(sys.argv[9:])
    log.configure(to_stderr=settings.to_stderr, verbose=settings.verbose)
    tally = Tally()
    rings.enter()
    listener, control, signing = (socket.socket(fileno=int(number)) for number in descriptors)

    async def serve_confined() -> bool:
        # From here, since what trio needs for its loop is open now, and no thread runs yet.
        profiles.front(control.fileno(), signing.fileno()).install()
        return await serve(rings, listener, control, signing, settings, tally)

    try:
        sys.exit(IDLE if trio.run(serve_confined) else 0)
    except CannotConfine as error:
        log.error(f"the front can't be confined: {error}")
        sys.exit(1)


_main()
