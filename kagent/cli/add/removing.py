"""Keys out of the agent, with their certificates (ssh-add.c)."""

from __future__ import annotations

import sys
from contextlib import suppress

from ...protocol.messages import RemoveAllIdentities, RemoveAllRsaIdentities, RemoveIdentity
from ...protocol.publickey import PublicKey
from ...text import as_it_came
from ..client import AgentError, Client
from . import keyfiles
from .options import Options
from .report import Report, fatal


def remove_all(client: Client, report: Report) -> bool:
    """Remove every key."""
    removed = True
    try:
        client.do(RemoveAllIdentities())
        report.done("All identities removed.")
    except AgentError:
        report.tell("Failed to remove all identities.")
        report.explain(client)
        removed = False
    with suppress(AgentError):
        client.do(RemoveAllRsaIdentities())  # of the first ssh; the agent may be an old one
    return removed


class Remover:
    """Removes keys as the options say.  Methods return whether any was removed."""

    def __init__(self, client: Client, options: Options) -> None:
        self._client = client
        self._options = options
        self._report = options.report

    def remove_file(self, name: str) -> bool:
        """Remove the key of a pair and its certificate; "-" is for public keys, one a line."""
        if name == "-":
            return self._remove_lines(sys.stdin.buffer.read().decode("utf-8", "surrogateescape"))
        try:
            key, comment = keyfiles.public_key(name)
        except keyfiles.Unreadable as error:
            print(f"Bad key file {name}: {error}")
            return False
        removed = self._wanted(key) and self._remove(key, comment, name)
        if self._options.keys_only:
            return removed
        path = f"{name}-cert.pub"
        try:
            certificate, comment = keyfiles.public_key(path)
        except keyfiles.Unreadable:
            return removed
        if certificate.plain_blob != key.plain_blob:
            fatal(f"Certificate {path} does not match private key {name}")
        return self._remove(certificate, comment, path) or removed

    def _remove_lines(self, text: str) -> bool:
        found = keyfiles.public_lines(text)
        removed = [
            self._remove(key, comment, "(stdin)") for key, comment in found if self._wanted(key)
        ]
        return any(removed)

    def _wanted(self, key: PublicKey) -> bool:
        keys, certificates = self._options.keys_only, self._options.certificates_only
        if key.certificate is None:
            return keys or not certificates
        return certificates or not keys

    def _remove(self, key: PublicKey, comment: str | None, name: str) -> bool:
        try:
            self._client.do(RemoveIdentity(key.blob))
        except AgentError as error:
            self._report.tell(f'Could not remove identity "{name}": {error}')
            self._report.explain(self._client)
            return False
        shown = "no comment" if comment is None else as_it_came(comment)
        self._report.done(f"Identity removed: {name} {key.kind} ({shown})")
        return True
