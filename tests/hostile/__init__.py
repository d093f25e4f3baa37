"""Attackers: programs that try to read a key, to use a constrained one, to unlock, to keep others
out.  Each test has a control: the same attack on a stand-in that has the fault succeeds."""
