"""The commands: arguments, terminal, exit codes.

None of them lets other programs of its user look into it.  That is forbidden here, before anything
else is imported: who gets in before stays in.
"""

from ..confine.process import forbid_inspection

forbid_inspection()
