"""The walls around one answer: its own users, files, network and processes, by the namespaces of Linux.

    user      it is nobody; not even root of the machine keeps a right
    mount     it sees Python, PyTorch and the system's libraries, read-only, and a small empty folder of its own
    net       not even this machine
    pid       its own processes only; all of them end with the first

and a filter of system calls (``calls``), without which some of them could be left.

This file knows nothing of the course: it is read inside the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import stat
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from . import calls

NAMESPACES = {"mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
              "pid": 0x20000000, "net": 0x40000000}  # fmt: skip
RDONLY, NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
DETACH, AT_FDCWD, AT_RECURSIVE, MOUNT_SETATTR = 2, -100, 0x8000, 442
NO_NEW_PRIVS, SET_PDEATHSIG, SIGKILL = 38, 1, 9
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/localtime")
DEVICES = ("null", "zero", "random", "urandom")
MANY_FILES = 1 << 16  # more than a zygote ever has open
OWN, OUTSIDE = "/own", "/.outside"
SCRATCH = "size=64m,nr_inodes=20000,mode=755"

_libc = ctypes.CDLL(None, use_errno=True)


class WallError(OSError):
    """A wall could not be built: here an answer must not run."""


def _call(what: str, result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise WallError(code, f"{what}: {os.strerror(code)}")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    done = _libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data))
    _call(f"mount {source or kind} on {target}", done)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def seal(target: str) -> None:
    """Make a mount, and all below it, read-only, without devices and without set-user-id files."""
    attr = _MountAttr(RDONLY | NOSUID | NODEV, 0, 0, 0)
    size = ctypes.sizeof(attr)
    done = _libc.syscall(MOUNT_SETATTR, AT_FDCWD, _bytes(target), AT_RECURSIVE, ctypes.byref(attr), size)
    _call(f"mount_setattr {target}", done)


def leave_namespaces() -> None:
    """Into new namespaces of every kind; of processes only those that are forked from here."""
    _call("unshare", _libc.unshare(sum(NAMESPACES.values())))


def map_users(pid: int) -> None:
    """Say who the users of the namespace of ``pid`` are: 0 is us, and 1, if we are root, is nobody.

    Called from outside, by the parent, which alone may name two users.
    """
    lines = "0 0 1\n1 65534 1\n" if os.getuid() == 0 else None
    if lines is None:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(lines or f"0 {os.getuid()} 1\n")
    Path(f"/proc/{pid}/gid_map").write_text(lines or f"0 {os.getgid()} 1\n")


def build_root(new: str, visible: Sequence[str], hidden: Sequence[str]) -> None:
    """Exchange the root folder for one in which only the system's libraries and ``visible`` are, all read-only.

    Called by the first process of the new namespaces: a /proc can be mounted only while the old one is in sight.

    Args:
        new: an empty folder outside, on which the new root is mounted.
        visible: folders and files that stay, at the same places.
        hidden: folders and files within these that are seen empty.
    """
    mount(None, "/", None, REC | PRIVATE)
    mount("tmpfs", new, "tmpfs", NOSUID | NODEV, SCRATCH)
    for path in [*SYSTEM, *sorted(visible, key=len)]:
        _show(path, new)
    for path in hidden:
        if os.path.isdir(new + path):
            mount("tmpfs", new + path, "tmpfs", RDONLY | NOSUID | NODEV, "size=4k,mode=755")
        elif os.path.exists(new + path):
            mount("/dev/null", new + path, None, BIND)
    os.mkdir(new + "/dev")
    for name in DEVICES:
        Path(f"{new}/dev/{name}").touch()
        mount(f"/dev/{name}", f"{new}/dev/{name}", None, BIND)
    for name in ("proc", "tmp", OWN[1:], OUTSIDE[1:]):
        os.makedirs(f"{new}/{name}", exist_ok=True)
    for name in ("tmp", OWN[1:]):
        os.chmod(f"{new}/{name}", 0o777)
    with contextlib.suppress(WallError):  # some containers show no whole /proc and allow no new one: then it is empty
        mount("proc", new + "/proc", "proc", NOSUID | NODEV | NOEXEC)
    _call("pivot_root", _libc.pivot_root(_bytes(new), _bytes(new + OUTSIDE)))
    os.chdir("/")
    _call(f"umount {OUTSIDE}", _libc.umount2(_bytes(OUTSIDE), DETACH))
    os.rmdir(OUTSIDE)


def _show(path: str, new: str) -> None:
    """Put one path at its place in the new root: a link as a link, all else bound to the original."""
    place = new + path
    if os.path.lexists(place) or not os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if stat.S_ISLNK(os.lstat(path).st_mode):
        os.symlink(os.readlink(path), place)
        return
    if os.path.isdir(path):
        os.mkdir(place)
    else:
        Path(place).touch()
    mount(path, place, None, BIND | REC)
    seal(place)


def become_nobody(*, second: bool) -> None:
    """Without a right, and without a way to get one back.

    Args:
        second: whether there is a second user to become; else it stays the caller, who owns nothing that is in sight.
    """
    if second:
        os.setgroups([])
        os.setresgid(1, 1, 1)
        os.setresuid(1, 1, 1)
    head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _call("capset", _libc.capset(head, sets))
    die_with_parent()
    _call("no_new_privs", _libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
    calls.refuse()


def die_with_parent() -> None:
    """Be killed when the parent ends."""
    _call("prctl", _libc.prctl(SET_PDEATHSIG, SIGKILL, 0, 0, 0))


def set_limits(limits: Mapping[str, int]) -> None:
    """``{"AS": bytes, "CPU": seconds, ...}``: soft and hard alike."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def close_all_but(keep: int) -> None:
    """Point the standard streams at nothing and close every other file."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    for low, high in pairwise((2, keep, MANY_FILES)):
        os.closerange(low + 1, high)


def python_paths() -> list[str]:
    """Where Python and its packages are: what an answer must be able to read.

    Of ``sys.path`` only what lies within Python's own folders: the course, installed from a checkout, is on it as well,
    and with the course its solutions.
    """
    own = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    return sorted(p for p in own if not p.startswith(SYSTEM[0] + "/"))
