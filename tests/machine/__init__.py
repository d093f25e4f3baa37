"""This machine made ready for kagent, and a virtual one over its files with a kernel that signs.

Standard library only: it runs before anything is installed.
"""
