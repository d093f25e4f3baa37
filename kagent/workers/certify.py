"""A certificate for a key, printed by the command that kagent.toml names.

The command runs before this process has read anything but that file; what it has printed is read
when it has ended, and this process can do nothing any more but compute.
"""

from __future__ import annotations

import time

from .. import programs
from ..configuration.identities import Identities
from ..jobs import roles
from ..jobs.causes import Cause
from ..jobs.jobs import Certified, Refused
from ..jobs.questions import Certify
from ..private.verify import BadSignature, check_certificate
from ..protocol.publickey import USER, PublicKey, parse_line
from ..protocol.wire import ProtocolError
from . import commands

_SECONDS = 45.0  # the user may have to type something, or to go to a web page
_LONGEST = 32768  # bytes; one for an RSA key of 4096 bits has 3,000


def certify(request: Certify) -> Certified | Refused:
    """The job of having one printed."""
    entries = Identities.read().entries
    named = (one for one in entries if one.certificate and one.public.plain_blob == request.blob)
    entry = next(named, None)
    if entry is None:
        return Refused(Cause.RENEWAL, "kagent.toml names no command for it any more")
    try:
        printed = commands.output(entry.certificate, _SECONDS, _LONGEST)
    except programs.NoOutput as error:
        return Refused(Cause.RENEWAL, f"{error}; {entry.place} names it")
    roles.CERTIFY.confine()
    try:
        return Certified(_checked(printed, request.blob, time.time()).blob)
    except (ProtocolError, BadSignature, ValueError) as error:
        return Refused(
            Cause.RENEWAL, f"what {entry.certificate[0]} has printed is of no use: {error}"
        )


def _checked(printed: bytes, plain: bytes, now: float) -> PublicKey:
    """The certificate, if it is one for that key.  Raises ProtocolError, BadSignature, ValueError.

    As for a certificate that is loaded, nobody here knows which authorities hosts trust.
    """
    lines = [line for line in printed.decode("utf-8", "replace").splitlines() if line.strip()]
    if len(lines) != 1:
        raise ValueError(f"{len(lines)} lines, not one as in id_ed25519-cert.pub")
    key, _ = parse_line(lines[0])
    certificate = key.certificate
    if certificate is None:
        raise ValueError("a plain key and no certificate")
    if certificate.role != USER:
        raise ValueError("a certificate for hosts and not for users: ssh-keygen -s without -h")
    if key.plain_blob != plain:
        raise ValueError(f"a certificate for another key, {key.fingerprint()}")
    check_certificate(key)
    if now >= certificate.valid_before:
        raise ValueError("a certificate whose time is over")
    if now < certificate.valid_after:
        raise ValueError("a certificate that isn't valid yet: look at the clocks here and there")
    return key
