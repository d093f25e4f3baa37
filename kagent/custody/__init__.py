"""Where a private key lives, and what it may be used for.  No private byte."""
