"""System calls that no answer needs are refused, by a filter in the kernel (seccomp) that nothing can take off again.

The namespaces and the watch over the memory have holes without it: in a namespace of its own, in a file that has no
name, in shared memory that is not attached, a process holds memory that nobody counts; a key ring outlives it; and it
may ask not to be killed with its parent.

This file knows nothing of the course: it is read inside the sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# The architecture by its name in the kernel, and its numbers; 435 and above are the same everywhere.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
REFUSED = {  # name: x86_64, aarch64
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "ptrace": (101, 117),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "vmsplice": (278, 75),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
}
CLONE, PRCTL, CLONE3 = (56, 220), (157, 167), 435
ANY_NAMESPACE = 0x7E020080  # the flags of clone that make one
SET_PDEATHSIG, SET_SECCOMP, FILTER = 1, 22, 2
OTHER_TABLE = 0x40000000  # from here on: the x32 names of the same calls
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # where they stand in what the filter is shown
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000


def program(machine: str) -> bytes:
    """The filter, in the kernel's words; a KeyError for a machine whose numbers are not known."""
    which, denied = list(ARCHITECTURES).index(machine), FAIL | errno.EPERM
    words = [(LOAD, ARCHITECTURE), *_if(EQUAL, ARCHITECTURES[machine], otherwise=[(RETURN, KILL)]), (LOAD, NUMBER)]
    words += _if(AT_LEAST, OTHER_TABLE, [(RETURN, denied)])
    for numbers in REFUSED.values():
        words += _if(EQUAL, numbers[which], [(RETURN, denied)])
    words += _if(EQUAL, CLONE3, [(RETURN, FAIL | errno.ENOSYS)])  # its flags cannot be seen: libraries then use clone
    for call, test, value in ((CLONE, ANY_BIT, ANY_NAMESPACE), (PRCTL, EQUAL, SET_PDEATHSIG)):
        inner = [(LOAD, FIRST_ARGUMENT), *_if(test, value, [(RETURN, denied)]), (RETURN, ALLOW)]
        words += _if(EQUAL, call[which], inner)
    words.append((RETURN, ALLOW))
    return b"".join(struct.pack("HBBI", code, *(jumps or (0, 0)), value) for code, value, *jumps in words)


def _if(test: int, value: int, then: list[tuple] | None = None, otherwise: list[tuple] | None = None) -> list[tuple]:
    """What is done if a test holds, or if it does not; a jump skips it."""
    if then:
        return [(test, value, 0, len(then)), *then]
    return [(test, value, len(otherwise), 0), *otherwise]


def refuse() -> None:
    """From now on, here and in all that is forked from here. It needs ``no_new_privs``.

    Raises:
        OSError: this kernel has no such filters, or the machine is of an unknown kind.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {machine}")
    words = ctypes.create_string_buffer(program(machine))
    loaded = struct.pack("HL", (len(words) - 1) // 8, ctypes.addressof(words))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_SECCOMP, FILTER, ctypes.c_char_p(loaded), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
