"""What the front was told when it was started, as the keeper puts it on its command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..custody.device import WebSafety


@dataclass(frozen=True)
class Settings:
    """How the front logs, what it shows, what it lets FIDO keys sign, and when it is idle."""

    fingerprint_hash: str = "sha256"
    web_safety: WebSafety = field(default_factory=WebSafety)
    to_stderr: bool = False
    verbose: bool = False
    idle_exit: int = 0  # seconds without a client after which the agent ends; 0: never

    def words(self) -> list[str]:
        """For a command line."""
        web = self.web_safety
        flags = (self.to_stderr, self.verbose, web.restricted)
        words = [self.fingerprint_hash, web.allowed, str(self.idle_exit)]
        return [*words, *(str(int(flag)) for flag in flags)]

    @classmethod
    def of(cls, words: list[str]) -> Settings:
        """Read `words`.  Raises ValueError."""
        fingerprint_hash, allowed, idle_exit, *flags = words
        to_stderr, verbose, restricted = (flag == "1" for flag in flags)
        web_safety = WebSafety(restricted, allowed)
        return cls(fingerprint_hash, web_safety, to_stderr, verbose, int(idle_exit))
