"""kagent.toml: what kagent is told in a file of the user's, and in one for the whole machine."""
