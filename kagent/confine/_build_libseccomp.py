"""Writes _libseccomp.py: cffi in ABI mode, so installing needs no compiler and starting no parser.

Run by hand after changing the declarations: python kagent/confine/_build_libseccomp.py
"""

from pathlib import Path

from cffi import FFI

# seccomp.h of libseccomp 2.5, and linux/filter.h for what the kernel takes.
_DECLARATIONS = """
    struct scmp_arg_cmp { unsigned int arg; int op; uint64_t datum_a; uint64_t datum_b; };
    struct sock_fprog { unsigned short len; void *filter; };
    void *seccomp_init(uint32_t def_action);
    void seccomp_release(void *ctx);
    int seccomp_attr_set(void *ctx, int attr, uint32_t value);
    int seccomp_syscall_resolve_name(const char *name);
    int seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int arg_cnt,
                               const struct scmp_arg_cmp *arg_array);
    int seccomp_export_bpf(void *ctx, int fd);
"""


def generate(target: Path) -> None:
    """Write the binding module to `target`."""
    builder = FFI()
    builder.cdef(_DECLARATIONS)
    builder.set_source("kagent.confine._libseccomp", None)
    builder.emit_python_code(str(target))


if __name__ == "__main__":
    generate(Path(__file__).with_name("_libseccomp.py"))
