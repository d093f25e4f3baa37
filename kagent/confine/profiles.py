"""The system calls that each process of kagent keeps, once it has started.

With none of them can a process start a program, make a connection or make memory executable; and
only the profiles for reading files let it open one: what a process needs, it has by then.  What
Python and the C library try, but can do without, is left out.
"""

from __future__ import annotations

import errno
import os
import socket
import termios

from ..keyctl import Permission, mask
from ..keyctl.syscalls import Operation
from .seccomp import ANYHOW, KILL_PROCESS, WHOLE, Check, Filter, Rules, refusal

_PROT_EXEC = 4
_SOCK_TYPE_MASK = 0xF
_F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = range(1, 5)
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC

# linux/prctl.h: how a worker's signal, name and filter are set.
_PRCTL = (1, 15, 22, 38)  # PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS

# linux/sched.h: a thread, and of no other namespace.
_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000
# clone(2): "on s390 the order of the first two arguments is reversed"
_CLONE_FLAGS = 1 if os.uname().machine == "s390x" else 0


def _calls(*names: str) -> Rules:
    return dict.fromkeys(names, ANYHOW)


def _keyctl(*operations: Operation) -> Rules:
    return {"keyctl": [[Check(0, operation)] for operation in operations]}


# On one keyring or key alone: what is in the user keyring asks for no possession.
def _on(serial: int, *operations: Operation, argument: int = 1) -> list[list[Check]]:
    return [[Check(0, operation), Check(argument, serial)] for operation in operations]


# Python at work on what it has: memory, locks, clocks, and its end.
_PYTHON: Rules = {
    **_calls("brk", "madvise", "mremap", "munmap", "futex", "sched_yield", "sched_getaffinity"),
    **_calls("clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep"),
    **_calls("time", "getpid", "gettid", "getrandom", "exit", "exit_group"),
    **_calls("restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    "mmap": [[Check(2, 0, _PROT_EXEC)]],
    "mprotect": [[Check(2, 0, _PROT_EXEC)]],
}

# What is open already.  A datagram socket, as the system log's is, could be made to send to others
# than its peer.
_OPEN: Rules = {
    **_calls("read", "recvfrom", "recvmsg", "write", "close", "poll", "ppoll"),
    **_calls("getsockname", "getsockopt"),
    "ioctl": [[Check(1, termios.FIONBIO)]],
    "sendto": [[Check(4, 0, WHOLE)]],
}

# To be ended if it hangs; by alarm(2), or as that is called elsewhere.
_TIMER: Rules = _calls("alarm", "setitimer")


# To read files, and nothing more.
_FILES: Rules = {
    **_PYTHON,
    **_OPEN,
    **_TIMER,
    **_calls("fstat", "lseek", "newfstatat", "readlink", "readlinkat", "stat", "uname"),
    **_calls("getuid", "fgetxattr"),  # whose the files must be
    "openat": [[Check(2, os.O_RDONLY, _WRITING)]],
}

# To follow a path to where it leads.
_LINKS: Rules = _calls("getcwd", "lstat", "newfstatat", "readlink", "readlinkat", "statx")


def _look_into(keyring: int) -> list[list[Check]]:
    return [*_on(keyring, Operation.SEARCH, Operation.READ), [Check(0, Operation.DESCRIBE)]]


def _sign_worker(keyring: int, opener: int) -> Rules:
    return {
        **_PYTHON,
        **_OPEN,
        **_TIMER,
        **_calls("pread64"),
        "keyctl": [*_on(keyring, Operation.SEARCH), *_on(opener, Operation.READ)],
    }


def front(*channels: int) -> Filter:
    """For the front: serves clients, starts threads and passes descriptors on through `channels`.

    Whatever else it tries fails with EPERM, and the front goes on: a traceback that lacks a line of
    its source file is no reason to end every client's connection.  Raises CannotConfine.
    """
    rules: Rules = {
        **_PYTHON,
        **_OPEN,
        **_calls("accept4", "pread64", "shutdown", "pipe2"),
        **_calls("epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "getuid"),
        **_calls("rseq", "set_robust_list", "add_key"),
        **_keyctl(
            Operation.UPDATE,
            Operation.REVOKE,
            Operation.SETPERM,
            Operation.DESCRIBE,
            Operation.CLEAR,
            Operation.LINK,
            Operation.UNLINK,
            Operation.SEARCH,
            Operation.READ,
            Operation.INVALIDATE,
            Operation.PKEY_QUERY,
            Operation.PKEY_ENCRYPT,
            Operation.PKEY_SIGN,
        ),
        "clone": [[Check(_CLONE_FLAGS, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NAMESPACES)]],
        "fcntl": [[Check(1, command)] for command in (_F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL)],
        "sendmsg": [[Check(0, channel)] for channel in channels],
        "setsockopt": [
            [Check(1, socket.SOL_SOCKET), Check(2, option)]
            for option in (socket.SO_SNDBUF, socket.SO_OOBINLINE)
        ],
        # How much of a key has come, which it never reads.
        "ioctl": [[Check(1, termios.FIONBIO)], [Check(1, termios.FIONREAD)]],
        "socketpair": [[Check(0, socket.AF_UNIX), Check(1, socket.SOCK_STREAM, _SOCK_TYPE_MASK)]],
    }
    # The arguments of clone3 are in memory, where no filter sees them; without it the C library
    # takes clone.
    return Filter(rules, refusal(errno.EPERM), absent=["clone3"])


def load_worker(inbox: int) -> Filter:
    """For a load worker: reads a client's key, and gives it to the kernel, into `inbox`.

    What is not foreseen fails with EPERM: it depends on what a client sends, and is to end in a
    refusal with a reason.  Raises CannotConfine.
    """
    rules: Rules = {
        **_PYTHON,
        **_OPEN,
        **_TIMER,
        # A token's key comes with the name of a library, which is followed to where it leads.
        **_LINKS,
        "add_key": [[Check(4, inbox)]],
        "keyctl": [
            *_on(inbox, Operation.UNLINK, argument=2),
            # To take from others what they may do with it, and never to give.
            [Check(0, Operation.SETPERM), Check(2, mask(possessor=Permission.ALL))],
            [Check(0, Operation.PKEY_QUERY)],
            [Check(0, Operation.PKEY_SIGN)],
        ],
    }
    return Filter(rules, refusal(errno.EPERM))


def reader() -> Filter:
    """For a worker that reads what a client sent, computes, and answers: nothing else at all.

    What is not foreseen fails with EPERM, as for a load worker.  Raises CannotConfine.
    """
    return Filter({**_PYTHON, **_OPEN, **_TIMER}, refusal(errno.EPERM))


def learn_worker() -> Filter:
    """For a learn worker, which has opened the one file that it writes: no other can be opened,
    made, renamed or removed.

    What is not foreseen fails with EPERM, as for a load worker.  Raises CannotConfine.
    """
    calls = _calls("flock", "ftruncate", "lseek", "pwrite64")
    return Filter({**_PYTHON, **_OPEN, **_TIMER, **calls}, refusal(errno.EPERM))


def token_process() -> Filter:
    """For a token process, which has started OpenSSH's helper: it passes on what it is sent.

    What is not foreseen fails with EPERM, as for a load worker.  Raises CannotConfine.
    """
    rules: Rules = {**_PYTHON, **_OPEN, **_TIMER, **_LINKS, **_calls("munlockall")}
    return Filter(rules, refusal(errno.EPERM))


def offer_worker(fetched: int) -> Filter:
    """For an offer worker: reads files of configuration, and looks at the keys that were `fetched`.

    What is not foreseen fails with EPERM.  Raises CannotConfine.
    """
    return Filter({**_FILES, "keyctl": _look_into(fetched)}, refusal(errno.EPERM))


def fetch_worker(fetched: int) -> Filter:
    """For a fetch worker, which has read what is configured: it has the kernel fetch a key.

    What is not foreseen fails with EPERM.  Raises CannotConfine.
    """
    rules: Rules = {
        **_PYTHON,
        **_OPEN,
        **_TIMER,
        "request_key": [[Check(3, fetched)]],
        "keyctl": [
            *_look_into(fetched),
            [Check(0, Operation.PKEY_QUERY)],
            [Check(0, Operation.PKEY_SIGN)],
        ],
    }
    return Filter(rules, refusal(errno.EPERM))


def lookout() -> Filter:
    """For the lookout: reads files.

    What is not foreseen fails with EPERM: the user is shown who asks as far as that can be
    read.  Raises CannotConfine.
    """
    return Filter(_FILES, refusal(errno.EPERM))


def signers(channel: int, keyring: int, opener: int) -> Filter:
    """For the parent of the sign workers: forks them, and sends their sockets through `channel`.

    They are confined further, so it keeps what they do until then, and after.  What is not foreseen
    fails with EPERM.  Raises CannotConfine.
    """
    rules: Rules = {
        **_sign_worker(keyring, opener),
        **_calls("fork", "getppid", "set_robust_list", "rseq", "wait4", "waitid"),
        **_calls("pipe", "pipe2", "mlock2", "mlockall", "getrlimit", "setrlimit", "prlimit64"),
        "clone": [[Check(_CLONE_FLAGS, 0, _CLONE_THREAD | _CLONE_NAMESPACES)]],
        "prctl": [[Check(0, option)] for option in _PRCTL],
        "sendmsg": [[Check(0, channel)]],
        "setsockopt": [[Check(1, socket.SOL_SOCKET), Check(2, socket.SO_SNDBUF)]],
        "socketpair": [
            [Check(0, socket.AF_UNIX), Check(1, socket.SOCK_SEQPACKET, _SOCK_TYPE_MASK)]
        ],
    }
    return Filter(rules, refusal(errno.EPERM), absent=["clone3"])


def sign_worker(keyring: int, opener: int) -> Filter:
    """For a sign worker: finds in `keyring` what opens sealed keys, and signs with one.

    It always does the same, so whatever else it tries is an attack or a fault, and the kernel ends
    it, before it can answer and with a line in the kernel's log.  Raises CannotConfine.
    """
    return Filter(_sign_worker(keyring, opener), KILL_PROCESS)
