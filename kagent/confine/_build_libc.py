"""Writes _libc.py: cffi in ABI mode, so installing needs no compiler and starting no parser.

Run by hand after changing the declarations: python kagent/confine/_build_libc.py
"""

from pathlib import Path

from cffi import FFI


def generate(target: Path) -> None:
    """Write the binding module to `target`."""
    builder = FFI()
    # prctl(2) and ptrace(2) are variadic in C.  Full registers are what every 64-bit Linux ABI
    # passes.
    builder.cdef("int prctl(int, uintptr_t, uintptr_t, uintptr_t, uintptr_t);")
    builder.cdef("long ptrace(int, int, uintptr_t, uintptr_t);")
    builder.cdef("int fork(void);")
    builder.cdef("int mlock2(uintptr_t, size_t, unsigned int);")
    builder.cdef("int mlockall(int);")
    builder.cdef("int madvise(uintptr_t, size_t, int);")
    builder.cdef("int munlockall(void);")
    builder.set_source("kagent.confine._libc", None)
    builder.emit_python_code(str(target))


if __name__ == "__main__":
    generate(Path(__file__).with_name("_libc.py"))
