"""The commands: arguments, terminal, exit codes.

None of them lets other programs of its user look into its memory.  That is forbidden here, before
anything else is imported: a program that is attached by then stays attached.
"""

from ..confine.process import forbid_inspection

forbid_inspection()
