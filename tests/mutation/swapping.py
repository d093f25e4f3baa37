"""Puts a change into functions that are there already: quicker than importing all anew."""

from __future__ import annotations

import ast
import functools
import gc
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import TypeAlias

Swap: TypeAlias = dict[CodeType, CodeType]


def swap_for(file: str, source: str, changed: str) -> Swap | None:
    """What to put in the place of which code.  None where the change is in what an import runs.

    `changed` is as `ast.unparse` writes it.
    """
    before = compile(source, file, "exec")
    bare, after = (
        compile(text, file, "exec", dont_inherit=True)
        for text in (ast.unparse(ast.parse(source)), changed)
    )
    swap: Swap = {}
    return swap if _compare(before, bare, after, swap) else None


def make(swap: Swap) -> bool:
    """In this process.  False where a function can't have the other code."""
    for one in gc.get_objects():
        if isinstance(one, functools._lru_cache_wrapper):
            one.cache_clear()
        elif isinstance(one, FunctionType) and one.__code__ in swap:
            try:
                one.__code__ = swap[one.__code__]
            except ValueError:  # other variables of what is around it
                return False
    return True


def _compare(before: CodeType, bare: CodeType, after: CodeType, swap: Swap) -> bool:
    """Note the functions that differ between `bare` and `after`, as they are in `before`."""
    if _of_itself(bare) != _of_itself(after):
        return False
    for old, plain, new in zip(*map(_inner, (before, bare, after)), strict=True):
        if _whole(plain) == _whole(new):
            continue
        if plain.co_flags & 1:  # CO_OPTIMIZED: a function, and no class
            _note(old, new, swap)
        elif not _compare(old, plain, new, swap):
            return False
    return True


def _note(old: CodeType, new: CodeType, swap: Swap) -> None:
    swap[old] = new
    inner = list(_inner(old)), list(_inner(new))
    if len(inner[0]) == len(inner[1]):
        for one, other in zip(*inner, strict=True):
            _note(one, other, swap)


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (one for one in code.co_consts if isinstance(one, CodeType))


def _of_itself(code: CodeType) -> tuple[object, ...]:
    constants = [None if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_exceptiontable, constants


def _whole(code: CodeType) -> tuple[object, ...]:
    return *_of_itself(code), code.co_freevars, *map(_whole, _inner(code))
