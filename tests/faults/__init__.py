"""Faults, injected at each step that can meet them: contrib/faults."""
