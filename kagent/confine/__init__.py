"""What a process of kagent gives up, so that whoever takes it over gains little.

`process`: core dumps, debuggers, new privileges.  `memory`: swap.  `profiles`: system calls.
"""
