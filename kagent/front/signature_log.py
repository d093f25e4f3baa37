"""One line for each signature and each refusal: what was asked, by whom, for where, and the result.

Never a byte of a key, nor what was signed.
"""

from __future__ import annotations

import time

from .. import log
from ..custody.identity import Identity
from ..jobs.causes import Cause
from ..jobs.questions import Origin
from ..protocol.messages import Type
from ..protocol.publickey import PublicKey
from ..text import quoted
from .refusals import Refusals

HELP = "kagentctl why"  # tells what to do


class Entry:
    """A request for a signature, filled in as more becomes known.

    `key` is None if what was asked for is no public key.
    """

    def __init__(self, key: PublicKey | None, *, forwarded: bool) -> None:
        self.key = key
        self.identity: Identity | None = None
        self.algorithm = ""
        self.user = ""
        self.forwarded = forwarded
        self.signed = False
        self.cause: Cause | None = None
        self.refusal = ""
        self.fault = ""  # why there is neither signature nor refusal, as when the client has gone

    def write(self, origin: Origin | None) -> None:
        """Log it.  `origin` is who asked, and the hosts on the way; None if that can't be told."""
        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "result": self._result,
            "reason": self.refusal or self.fault,
            "cause": self.cause or "",
            "key": self.key.fingerprint() if self.key else "unknown",
            "comment": self.identity.comment if self.identity else "",
            "algorithm": self.algorithm,
            "custody": self.identity.lives if self.identity else "",
            "by": str(origin.asker) if origin else "",
            "host": " → ".join(origin.hosts) if origin else "",
            "user": self.user,
            "forwarded": "yes" if self.forwarded else "no",
            "help": HELP if self.cause else "",
        }
        line = " ".join(f"{name}={quoted(value)}" for name, value in fields.items() if value)
        (log.info if self.signed else log.warning)(line)

    def keep(self, refusals: Refusals, origin: Origin | None) -> None:
        """Have a refusal among the last ones."""
        assert self.cause
        refusals.add(
            self.cause,
            self.refusal,
            request=Type.SIGN_REQUEST.name,
            origin=origin,
            forwarded=self.forwarded,
            fingerprint=self.key.fingerprint() if self.key else "",
            comment=self.identity.comment if self.identity else "",
            user=self.user,
        )

    @property
    def _result(self) -> str:
        if self.signed:
            return "signed"
        return "refused" if self.refusal else "failed"
