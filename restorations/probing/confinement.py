"""Takes from a process what it does not need: memory, time, files, other processes, the network.

On Linux a seccomp filter lets only those system calls through that computing and reading of open descriptors need;
whatever else a hostile file may talk a decoder into fails with EPERM. It needs no privileges. Other systems have the
limits only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a process may use."""

    memory_bytes: int
    cpu_seconds: int
    open_files: int = 32
    file_bytes: int = 0


def limit(limits: Limits) -> None:
    """Sets the limits of this process and of those that it starts; they cannot be raised again."""
    _lower(resource.RLIMIT_AS, limits.memory_bytes)
    # A second more before SIGKILL: the first signal ends the process as well, but can be told from a kill.
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1)
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(name: int, soft: int, hard: int | None = None) -> None:
    hard = soft if hard is None else hard
    _, hardest = resource.getrlimit(name)
    if hardest != resource.RLIM_INFINITY:
        soft, hard = min(soft, hardest), min(hard, hardest)
    try:
        resource.setrlimit(name, (soft, hard))
    except (ValueError, OSError):
        # macOS refuses some of them, such as the one of address space.
        if sys.platform == "linux":
            raise


# --- System calls -------------------------------------------------------------------------------------------

#: Numbers by machine: x86_64 from the kernel's own table, the others from the generic one.
_CALLS: Final[dict[str, tuple[int, int]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, -1),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "fcntl": (72, 25),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "tgkill": (234, 131),
    "ppoll": (271, 73),
    "getrandom": (318, 278),
}
_NETWORK: Final[dict[str, tuple[int, int]]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "ptrace": (101, 117),
    "io_uring_setup": (425, 425),
}
_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_KILL: Final = 0x80000000
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38


def allow_computing_only() -> bool:
    """Refuses every system call but those of computing and of open descriptors; False where that cannot be done."""
    return _filter(_CALLS.values(), listed=_ALLOW, others=_REFUSE)


def refuse_network() -> bool:
    """Refuses sockets to this process and those that it starts; False where that cannot be done."""
    return _filter(_NETWORK.values(), listed=_REFUSE, others=_ALLOW)


def _filter(calls: Iterable[tuple[int, int]], *, listed: int, others: int) -> bool:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        return False
    column, architecture = _ARCHITECTURES[machine]
    numbers = [call[column] for call in calls if call[column] >= 0]
    program = _program(numbers, architecture, listed=listed, others=others)
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program)
    # struct sock_fprog: the number of instructions, and where they are.
    filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    held = ctypes.create_string_buffer(filter_program)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    # Kernels without seccomp answer EINVAL; the limits hold there all the same.
    return bool(libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(held), 0, 0) == 0)


def _program(numbers: list[int], architecture: int, *, listed: int, others: int) -> bytes:
    """Returns a BPF program over `struct seccomp_data`: the call's number is at 0, the architecture at 4."""
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    # On x86_64 another numbering of the same calls (x32) begins at this bit.
    jump_if_at_least, other_numbering = 0x35, 0x40000000
    instructions = [
        (load, 0, 0, 4),
        (jump_if_equal, 1, 0, architecture),
        (give, 0, 0, _KILL),
        (load, 0, 0, 0),
        (jump_if_at_least, len(numbers), 0, other_numbering),
    ]
    # Each comparison jumps over those behind it and over the two other answers.
    for position, number in enumerate(numbers):
        instructions.append((jump_if_equal, len(numbers) - position + 1, 0, number))
    instructions += [(give, 0, 0, others), (give, 0, 0, _REFUSE), (give, 0, 0, listed)]
    # A foreign numbering lands on the refusal, right behind the answer for the others.
    instructions[4] = (jump_if_at_least, len(numbers) + 1, 0, other_numbering)
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def main(arguments: list[str]) -> None:
    """`python -m restorations.probing.confinement MEMORY CPU FILE_BYTES PROGRAM ...`: runs a program in limits,
    without network."""
    memory, cpu, file_bytes = map(int, arguments[:3])
    refuse_network()
    limit(Limits(memory_bytes=memory, cpu_seconds=cpu, open_files=64, file_bytes=file_bytes))
    os.execv(arguments[3], arguments[3:])  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main(sys.argv[1:])
