"""What a process of kagent gives up, so that who takes it over has little from it.

Here: core dumps, debuggers, swap, new privileges.  `profiles`: the system calls that each process
keeps.
"""

from .memory import lock_memory, memory_areas
from .process import die_with_parent, forbid_inspection, forbid_new_privileges, set_name

__all__ = [
    "die_with_parent",
    "forbid_inspection",
    "forbid_new_privileges",
    "lock_memory",
    "memory_areas",
    "set_name",
]
