"""Damages kagent's code in small ways, each of which some test should notice: contrib/mutate."""
