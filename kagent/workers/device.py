"""Signatures by a FIDO token, and what the user does for them.  Asks a PIN."""

from __future__ import annotations

from contextlib import nullcontext

from ..custody.device import Handle, NotTaken, Providers, TokenKey
from ..custody.identity import description_of
from ..custody.shelf import Shelf
from ..jobs.causes import Cause
from ..jobs.jobs import Refused, Signed
from ..jobs.questions import DeviceSignature
from ..openssh import askpass, skhelper
from ..openssh.helpers import HelperError
from ..protocol.publickey import PublicKey
from ..protocol.wire import ProtocolError
from ..text import printable

# sk-api.h: the token waits until it is touched.
_USER_PRESENCE_REQUIRED = 0x01


def sign(
    request: DeviceSignature, handles: Shelf, providers: Providers, gone: tuple[int, ...]
) -> Signed | Refused:
    """The job of a signature by a token whose handle is in `handles`, by those rules.

    What it starts, ssh-askpass and a provider's code, has no descriptor but its own three.  `gone`
    is as in Patience.
    """
    payload = handles.entries().get(description_of(request.blob))
    if payload is None:
        return Refused(Cause.CHANGED, "the key was removed meanwhile")
    try:
        return Signed(sign_by_token(request, payload, providers, askpass.Patience(gone)))
    except (HelperError, NotTaken, ProtocolError) as error:
        return Refused.because(error)


def sign_by_token(
    request: DeviceSignature,
    payload: bytes,
    providers: Providers,
    patience: askpass.Patience | None = None,
) -> bytes:
    """A signature as ssh sends it, by the Handle that is stored as `payload`.

    What it starts, ssh-askpass and a provider's code, possesses what its caller does.  A token that
    wants a PIN says so when it is asked without one; then the user is asked, once.  Blocks as long
    as user and token take.  Raises HelperError, NotTaken if `providers` don't allow the
    library, and ProtocolError for a damaged payload.
    """
    held = providers.take_again(Handle.parse(payload), request.blob)
    key = held.key.key
    assert isinstance(key, TokenKey)
    about = PublicKey.parse(held.key.public_blob)
    kind, fingerprint = about.kind, about.fingerprint()
    details = "".join(f"\n{printable(line)}" for line in request.details.splitlines())
    touch = bool(key.flags & _USER_PRESENCE_REQUIRED)
    showing = askpass.notice(
        f"Confirm user presence for key {kind} {fingerprint}{details}", "User presence confirmed"
    )
    try:
        with showing if touch else nullcontext():
            return skhelper.sign(held.key, held.provider, request.data)
    except skhelper.PinRequired:
        wanted = "PIN and confirm user presence" if touch else "PIN"
        pin = askpass.secret(f"Enter {wanted} for {kind} key {fingerprint}{details}: ", patience)
        if not pin:
            raise HelperError("the token wants a PIN, and none was given", Cause.PIN) from None
        return skhelper.sign(held.key, held.provider, request.data, pin)
