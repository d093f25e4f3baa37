"""What a process's system call filters let through, read from the kernel and run here.  As root.

Not tried out: a call that is let through would be made, and some ends the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

_GET_FILTER = 0x420C
_X86_64 = 0xC000003E  # linux/audit.h
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LAST = 600  # no call has a higher number

ALLOW, KILL = 0x7FFF0000, 0x80000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_seccomp = ctypes.CDLL("libseccomp.so.2")
_seccomp.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
_seccomp.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    if_true: int
    if_false: int
    operand: int


class Filters(NamedTuple):
    """All that a process has, of which the strictest counts."""

    programs: Sequence[Sequence[Instruction]]

    def verdict(self, number: int, *arguments: int) -> int:
        """What the kernel does with that call: ALLOW, KILL, or another action of seccomp(2)."""
        known = _known(number)
        for place, argument in enumerate(arguments):
            known[_ARGUMENTS + 8 * place] = argument & 0xFFFFFFFF
            known[_ARGUMENTS + 8 * place + 4] = argument >> 32 & 0xFFFFFFFF
        for place in range(len(arguments), 6):
            known[_ARGUMENTS + 8 * place] = known[_ARGUMENTS + 8 * place + 4] = 0
        results = [_results(program, known) for program in self.programs]
        return min((next(iter(result)) for result in results), key=_rank, default=ALLOW)

    def allows(self, name: str, *arguments: int) -> bool:
        """Whether it lets that call through, by its name."""
        [number] = [number for number, known in calls().items() if known == name]
        return self.verdict(number, *arguments) == ALLOW

    @property
    def kept(self) -> dict[str, bool]:
        """The calls that can be made, and whether with any arguments."""
        found = {}
        for number, name in calls().items():
            results = [_results(program, _known(number)) for program in self.programs]
            if all(ALLOW in result for result in results):
                found[name] = all(result == {ALLOW} for result in results)
        return found


@cache
def calls() -> dict[int, str]:
    """This machine's system calls, as libseccomp knows them."""
    names = {
        number: _seccomp.seccomp_syscall_resolve_num_arch(_X86_64, number)
        for number in range(_LAST)
    }
    return {number: name.decode() for number, name in names.items() if name}


def filters_of(pid: int) -> Filters:
    """Those of a thread or process that this one is attached to, and that is stopped."""
    programs: list[list[Instruction]] = []
    while (count := _libc.ptrace(_GET_FILTER, pid, len(programs), 0)) >= 0:
        code = (ctypes.c_uint64 * count)()
        _libc.ptrace(_GET_FILTER, pid, len(programs), ctypes.addressof(code))
        programs.append([_instruction(word) for word in code])
    return Filters(programs)


def _instruction(word: int) -> Instruction:
    return Instruction(word & 0xFFFF, word >> 16 & 0xFF, word >> 24 & 0xFF, word >> 32)


def _known(number: int) -> dict[int, int]:
    return {_NUMBER: number, _ARCHITECTURE: _X86_64}


def _rank(action: int) -> int:
    """The strictest action is the smallest, as a signed number: linux/seccomp.h."""
    return ctypes.c_int32(action & 0xFFFF0000).value


def _results(program: Sequence[Instruction], known: dict[int, int]) -> set[int]:
    """Every action that it can come to, where of the call only `known` is known.  bpf(4)."""
    results: set[int] = set()
    waiting: list[tuple[int, int | None]] = [(0, 0)]
    seen = set()
    while waiting:
        place, value = waiting.pop()
        if (place, value) in seen:
            continue
        seen.add((place, value))
        code, if_true, if_false, operand = program[place]
        place += 1
        match code:
            case 0x20:  # load a word
                waiting.append((place, known.get(operand)))
            case 0x54:  # and
                waiting.append((place, None if value is None else value & operand))
            case 0x05:  # jump
                waiting.append((place + operand, value))
            case 0x06:  # return
                results.add(operand)
            case 0x15 | 0x25 | 0x35 | 0x45:  # jump if equal, greater, not less, or bits are set
                ways = (True, False) if value is None else (_holds(code, value, operand),)
                waiting += [(place + (if_true if way else if_false), value) for way in ways]
            case _:
                raise AssertionError(f"an instruction that libseccomp doesn't use: {code:#x}")
    return results


def _holds(code: int, value: int, operand: int) -> bool:
    return {
        0x15: value == operand,
        0x25: value > operand,
        0x35: value >= operand,
        0x45: bool(value & operand),
    }[code]
