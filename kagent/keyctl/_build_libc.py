"""Writes _libc.py: cffi in ABI mode, so installing needs no compiler and starting no parser.

Run by hand after changing the declarations: python kagent/keyctl/_build_libc.py
"""

from pathlib import Path

from cffi import FFI


def generate(target: Path) -> None:
    """Write the binding module to `target`."""
    builder = FFI()
    # syscall(2) is variadic in C.  Full registers are what every 64-bit Linux ABI passes, and
    # declaring them so spares each call the packing of variadic arguments.
    builder.cdef("long syscall(long, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t);")
    builder.set_source("kagent.keyctl._libc", None)
    builder.emit_python_code(str(target))


if __name__ == "__main__":
    generate(Path(__file__).with_name("_libc.py"))
