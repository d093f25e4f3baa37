"""Where a private key lives and how it signs."""
