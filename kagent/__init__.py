"""kagent: an ssh-agent whose keys live in the Linux kernel."""

import os

__version__ = "0.1.0"

# Where this is a link to one version among several, what is imported from here on is of that
# version, wherever the link leads by then.
__path__ = [os.path.realpath(folder) for folder in __path__]
