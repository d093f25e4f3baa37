"""Whether anything of a private key is in an agent's memory: for who doesn't want to believe us.

`needles`: what a key looks like in memory.  `memory`: reading a process's.  `processes`: which are
an agent's, and how they are held still meanwhile.  `control`: a process that has the key, which the
same search must find.

For root, and for a process that ends soon: it has the key.
"""
