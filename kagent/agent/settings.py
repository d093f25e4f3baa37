"""What the front was told when it was started, as the keeper puts it on its command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..custody.device import WebSafety


@dataclass(frozen=True)
class Settings:
    """How the front logs, what it shows, and what it lets FIDO keys sign."""

    fingerprint_hash: str = "sha256"
    web_safety: WebSafety = field(default_factory=WebSafety)
    to_stderr: bool = False
    verbose: bool = False

    def words(self) -> list[str]:
        """For a command line."""
        web = self.web_safety
        flags = (self.to_stderr, self.verbose, web.restricted)
        return [self.fingerprint_hash, web.allowed, *(str(int(flag)) for flag in flags)]

    @classmethod
    def of(cls, words: list[str]) -> Settings:
        """Read `words`.  Raises ValueError."""
        fingerprint_hash, allowed, *flags = words
        to_stderr, verbose, restricted = (flag == "1" for flag in flags)
        return cls(fingerprint_hash, WebSafety(restricted, allowed), to_stderr, verbose)
