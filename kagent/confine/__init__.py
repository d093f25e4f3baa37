"""What a process of kagent gives up, so that who takes it over has little from it.

`process`: core dumps, debuggers, new privileges.  `memory`: swap.  `profiles`: system calls.
"""
