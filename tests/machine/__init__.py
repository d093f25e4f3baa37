"""A virtual machine with a Debian kernel, over this machine's own files, to run tests in.

Standard library only: it runs before anything is installed.
"""
