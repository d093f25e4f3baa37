"""kagent: an ssh-agent whose keys live in the Linux kernel."""

__version__ = "0.1.0"
