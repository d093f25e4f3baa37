"""Keys for some hosts only: what is asked of an agent, and what has to come of it."""
