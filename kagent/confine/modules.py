"""Modules given up: a package imported without what of it, and for it, is never used.

It takes a third of the time and memory of an import, and what isn't there can't be called.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib import import_module
from types import ModuleType


class _Nothing:
    """Under a name of an absent module.  It can be named, as in a signature, and nothing else."""


class _Absent(ModuleType):
    """In a module's place."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()


def import_without(package: str, absent: Collection[str]) -> None:
    """Import a package as if there was nothing in the modules `absent`, where they aren't yet.

    If it makes use of them when it is imported, as another version of it may, it gets them.
    """
    before = dict(sys.modules)
    sys.modules.update({name: _Absent(name) for name in absent if name not in before})
    try:
        import_module(package)
    except Exception:
        tried = {name.partition(".")[0] for name in (package, *absent)}
        for name in sys.modules.keys() - before.keys():
            if name.partition(".")[0] in tried:
                del sys.modules[name]
        import_module(package)
    for name in absent:
        if isinstance(sys.modules.get(name), _Absent):
            del sys.modules[name]
