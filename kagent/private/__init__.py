"""The one room where private keys are: all that imports cryptography or sees a private byte."""

from ..confine.modules import import_without

# Key files are read in kagent's own way; and this would be a third of what cryptography takes of
# the memory of each process that signs.
import_without(
    "cryptography.hazmat.primitives.serialization",
    ["cryptography.hazmat.primitives.serialization.ssh"],
)
