"""The keys of PKCS#11 tokens into the agent, and out of it (ssh-add.c)."""

from __future__ import annotations

from ...protocol.constraints import AssociatedCertificates, PermittedHop
from ...protocol.messages import (
    AddSmartcardKey,
    AddSmartcardKeyConstrained,
    Message,
    RemoveSmartcardKey,
)
from ..client import AgentError, Client
from . import keyfiles, prompt
from .options import Options
from .report import fatal


class Card:
    """The tokens of one provider library.  Methods return whether it went well."""

    def __init__(self, client: Client, options: Options, hops: tuple[PermittedHop, ...]) -> None:
        """Reads the certificates that the options name; ends the program if one can't be."""
        self._client = client
        self._options = options
        self._hops = hops
        self._certificates = tuple(_certificate(name) for name in options.files)

    def add(self) -> bool:
        """Ask for the PIN, if one is to be given, and have the agent hold the tokens' keys."""
        options, typed = self._options, b""
        if options.asks_pin:
            typed = prompt.passphrase("Enter passphrase for PKCS#11: ", options.report)
        pin = typed.decode("utf-8", "surrogateescape")
        certificates = None
        if self._certificates and not options.keys_only:
            certificates = AssociatedCertificates(options.certificates_only, self._certificates)
        constraints = options.constraints(options.lifetime, self._hops, certificates=certificates)
        if constraints:
            return self._do(AddSmartcardKeyConstrained(options.token, pin, constraints), "add")
        return self._do(AddSmartcardKey(options.token, pin), "add")

    def remove(self) -> bool:
        """Have the agent forget the tokens' keys."""
        return self._do(RemoveSmartcardKey(self._options.token, ""), "remove")

    def _do(self, message: Message, verb: str) -> bool:
        report, name = self._options.report, self._options.token
        try:
            self._client.do(message)
        except AgentError as error:
            report.tell(f'Could not {verb} card "{name}": {error}')
            report.explain(self._client, self._options.own)
            return False
        report.done(f"Card {verb.removesuffix('e')}ed: {name}")
        if report.verbosity and verb == "add" and (explanation := self._client.explanation()):
            report.debug(1, explanation)
        return True


def _certificate(name: str) -> bytes:
    """A public key, or a certificate of one, from a file."""
    try:
        return keyfiles.public_key(name)[0].blob
    except keyfiles.Unreadable as error:
        fatal(f"load certificate {name}: {error}")
