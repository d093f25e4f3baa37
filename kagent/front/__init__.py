"""The front: serves clients, decides, and holds nothing that is secret."""

from ..confine.modules import import_without

# Of trio it has the event loop.  What else belongs to it, and is of no use to a server of sockets
# that are open, would be much of the time in which kagent starts.
import_without(
    "trio",
    [
        *("ssl", "trio._dtls", "trio._ssl", "trio._highlevel_ssl_helpers"),
        *("trio._file_io", "trio._path", "trio._subprocess", "trio._socket", "trio.socket"),
        *("trio._highlevel_open_tcp_listeners", "trio._highlevel_open_tcp_stream"),
        *("trio._highlevel_open_unix_stream", "trio._highlevel_serve_listeners"),
        "trio._highlevel_socket",
    ],
)
