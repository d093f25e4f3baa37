"""One-shot workers, one job each, and the lookout.  The only processes that ever see a key."""
