# Why requests are refused, as one word each.
#
# FAILURE has no room for a reason.  kagent's reasons are sentences; what they have in common, so
# that somebody can be told what to do, is their cause.  What to do is in kagent/cli/steps.py.
"""The causes of refusals."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why something was refused.  The words go to the log and to programs, and so they stay."""

    # The lock.
    LOCKED = "locked"
    WRONG_PASSPHRASE = "wrong-passphrase"  # noqa: S105
    NO_PASSPHRASE = "no-passphrase"  # noqa: S105
    NOT_LOCKED = "not-locked"
    # The key isn't there, or isn't what it was.
    UNKNOWN_KEY = "unknown-key"
    EXPIRED = "expired"
    UNUSED = "unused"
    REMOVED = "removed"
    CHANGED = "changed"
    # The user.
    DENIED = "denied"
    UNANSWERED = "unanswered"
    CANNOT_ASK = "cannot-ask"
    NO_ASKPASS = "no-askpass"
    # Where a key may be used.
    NO_HOST = "no-host"
    NO_LOGIN = "no-login"
    OTHER_HOST = "other-host"
    UNPROVEN = "unproven"
    BINDING = "binding"
    FROM_AFAR = "from-afar"
    WEB = "web"
    # The request itself.
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    FLAGS = "flags"
    INTERRUPTED = "interrupted"
    OTHER_USER = "other-user"
    # A key that is to be held.
    KEY_TYPE = "key-type"
    INVALID_KEY = "invalid-key"
    CERTIFICATE = "certificate"
    CONSTRAINT = "constraint"
    LIFETIME = "lifetime"
    CUSTODY = "custody"
    KERNEL_SIGNS_NOT = "kernel-signs-not"
    # Tokens, and the libraries that talk to them.
    NO_PROVIDER = "no-provider"
    PROVIDER = "provider"
    REMOTE_PROVIDER = "remote-provider"
    HELPER = "helper"
    PIN = "pin"
    TOKEN = "token"  # noqa: S105
    TOKEN_GONE = "token-gone"  # noqa: S105
    HELD_ALREADY = "held-already"
    # Other agents, and keys that are fetched.
    BEHIND = "behind"
    ELSEWHERE = "elsewhere"
    LOOP = "loop"
    CONFIGURED = "configured"
    FETCH = "fetch"
    SOURCE = "source"
    SOURCE_PASSPHRASE = "source-passphrase"  # noqa: S105
    SOURCE_FILE = "source-file"
    SOURCE_OPEN = "source-open"
    SOURCE_COMMAND = "source-command"
    SOURCE_FORWARDED = "source-forwarded"
    RENEWAL = "renewal"
    # This machine.
    LIBRARY = "library"
    TOO_MANY = "too-many"
    QUOTA = "quota"
    USED_UP = "used-up"
    KERNEL = "kernel"
    STILL_THERE = "still-there"
    FAULT = "fault"


class Explained(Exception):
    """Something that was refused; the text says why."""

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(text)
        self.cause = cause
