"""System call filters: a process keeps what is named, and loses all else for good.  seccomp(2).

libseccomp turns names into this machine's numbers, and rules into a program for the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from ._libseccomp import ffi
from .process import forbid_new_privileges, prctl

_LIBRARY = "libseccomp.so.2"
_INSTALL = (
    "install it; Debian, Ubuntu: apt-get install libseccomp2; Fedora: dnf install libseccomp; "
    "Arch: pacman -S libseccomp"
)
_OTHER_KERNEL = "boot a kernel that was built with CONFIG_SECCOMP_FILTER"
_OTHER_PROFILE = "allow prctl and seccomp in the container's seccomp profile"

# seccomp.h of libseccomp
KILL_PROCESS = 0x80000000
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_ATTRIBUTE_BAD_ARCHITECTURE = 2
_ATTRIBUTE_OPTIMIZE = 8
_BINARY_TREE = 2
_MASKED_EQUAL = 7

# linux/prctl.h, linux/seccomp.h
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION = 8  # bytes: struct sock_filter

_INT = 0xFFFFFFFF
WHOLE = 0xFFFFFFFFFFFFFFFF


class CannotConfine(Exception):
    """There can be no filter here, and what needs one may not go on.  `mend` says what helps."""

    def __init__(self, reason: str, mend: str = "") -> None:
        super().__init__(f"{reason}: {mend}" if mend else reason)
        self.reason = reason
        self.mend = mend


class Check(NamedTuple):
    """Argument `number`, counted from 0, is `value` in the bits of `mask`.

    Of an int the kernel takes those 32 bits, whatever the register holds above them; an address
    needs WHOLE.
    """

    number: int
    value: int
    mask: int = _INT


# System call -> what its arguments may be: alternatives, each of checks that hold together.
Rules: TypeAlias = Mapping[str, Sequence[Sequence[Check]]]
ANYHOW: Sequence[Sequence[Check]] = ((),)


def refusal(number: int) -> int:
    """The action by which a call fails with that errno."""
    return _ERRNO | number


class Filter:
    """A filter, compiled once for as many processes as there may be."""

    def __init__(self, rules: Rules, otherwise: int, *, absent: Sequence[str] = ()) -> None:
        """Let `rules` through, and do `otherwise` (KILL_PROCESS, `refusal`) with all else.

        A name that the library doesn't know, of another architecture or a newer kernel, is passed
        over.  Calls in `absent` fail with ENOSYS, as if the kernel had none such.  A call by the
        convention of another architecture ends the process.  Raises CannotConfine.
        """
        self.program = _compile(rules, otherwise, absent)
        self._code = ffi.from_buffer(self.program)
        length = len(self.program) // _INSTRUCTION
        self._argument = ffi.new("struct sock_fprog *", (length, self._code))
        self._address = int(ffi.cast("uintptr_t", self._argument))

    def install(self) -> None:
        """Confine this thread, and all threads and processes that it starts from now on.

        Takes 50 µs.  Raises CannotConfine.
        """
        try:
            forbid_new_privileges()  # else the kernel refuses filters of an ordinary user
            prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._address)
        except OSError as error:
            raise _cannot(error) from error


@cache
def library() -> Any:
    """libseccomp, as cffi has it.  Raises CannotConfine."""
    try:
        return ffi.dlopen(_LIBRARY)
    except OSError as error:
        raise CannotConfine(f"{_LIBRARY} is missing", _INSTALL) from error


def check() -> None:
    """Raises CannotConfine if no process can be confined here."""
    library()
    try:
        # Where filters are taken, it is next looked for, in vain.
        prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise _cannot(error) from error


def _cannot(error: OSError) -> CannotConfine:
    # The kernel itself says EINVAL: all else is said by a filter from outside.
    mend = _OTHER_KERNEL if error.errno == errno.EINVAL else _OTHER_PROFILE
    return CannotConfine(f"no system call filter is taken ({error})", mend)


def _compile(rules: Rules, otherwise: int, absent: Sequence[str]) -> bytes:
    seccomp = library()
    context = seccomp.seccomp_init(otherwise)
    if not context:
        raise CannotConfine("libseccomp makes no filter")
    try:
        _succeed(seccomp.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCHITECTURE, KILL_PROCESS))
        # Half the time to install it; libseccomp has it since 2.5, and without it does the same.
        seccomp.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)
        for name, alternatives in rules.items():
            for checks in alternatives:
                _add(context, name, _ALLOW, checks)
        for name in absent:
            _add(context, name, refusal(errno.ENOSYS), ())
        # A pipe has room for the longest. To a file, RLIMIT_FSIZE could forbid it: any process
        # of the user can lower that.
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with open(reading, "rb", buffering=0) as exported:
            try:
                _succeed(seccomp.seccomp_export_bpf(context, writing))
            finally:
                os.close(writing)
            return exported.readall()
    finally:
        seccomp.seccomp_release(context)


def _add(context: object, name: str, action: int, checks: Sequence[Check]) -> None:
    number = library().seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return
    compared = [(check.number, _MASKED_EQUAL, check.mask, check.value) for check in checks]
    arguments = ffi.new("struct scmp_arg_cmp[]", compared)
    _succeed(library().seccomp_rule_add_array(context, action, number, len(checks), arguments))


def _succeed(result: int) -> None:
    if result < 0:
        raise CannotConfine(f"libseccomp makes no filter: {os.strerror(-result)}")
