"""The commands: arguments, terminal, exit codes.

None of them lets other programs of its user look into its memory.  That is forbidden here, before
anything else is imported: a program that is attached by then stays attached.
"""

import gc

from ..confine.process import forbid_inspection

forbid_inspection()
# What is imported stays.  To look for garbage in it would take a tenth of a start; whatever lives
# for longer than a command has it looked for.
gc.disable()
