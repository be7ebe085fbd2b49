"""The few system calls that the lab needs and Python 3.11 does not have; Linux only.

Commands (``mount``, ``unshare``) would do, but a host of the lab makes some twenty mounts when it boots: as system
calls they take a millisecond together, and an error names the call that failed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24

# linux/capability.h
CAP_SYS_MODULE = 16
CAP_SYS_RAWIO = 17
CAP_SYS_TIME = 25
CAP_MKNOD = 27
CAP_WAKE_ALARM = 35

NAMED_NETWORKS = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces of ``flags`` for new ones; a new PID namespace is entered by the next child."""
    _checked(_libc.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def enter_network(name: str) -> None:
    """Move the calling thread into a network namespace of `ip netns`."""
    descriptor = os.open(NAMED_NETWORKS / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(CLONE_NEWNET)), f"enter network {name}")
    finally:
        os.close(descriptor)


@contextmanager
def inside_network(name: str | None) -> Iterator[None]:
    """Be in a network namespace for a ``with`` block, this thread only; None stays where it is.

    A socket stays in the namespace that it was made in, so it is enough to make sockets in the block.
    """
    if name is None:
        yield
        return
    before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_network(name)
        try:
            yield
        finally:
            _checked(_libc.setns(ctypes.c_int(before), ctypes.c_int(CLONE_NEWNET)), "leave the network")
    finally:
        os.close(before)


def mount(source: str, target: Path | str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system; the arguments are those of the system call.

    Raises:
        OSError: it names source, target and options.
    """
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _checked(result, f"mount {kind} {source} on {target} {options}".replace("  ", " "))


def bind(source: Path | str, target: Path | str, *, read_only: bool = False) -> None:
    """Show a file or folder at a second place."""
    mount(str(source), target, flags=MS_BIND)
    if read_only:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def unmount(target: Path | str) -> None:
    """Take a mount away at once; whoever still uses it keeps it until the end."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), f"unmount {target}")


def change_root(root: Path | str) -> None:
    """Make ``root``, a mount point, the root of this mount namespace, and drop the old one."""
    os.chdir(root)
    # pivot_root(2): with both the same folder, the old root lies on top of the new one, and is unmounted there.
    _checked(_libc.pivot_root(b".", b"."), f"make {root} the root")
    unmount(".")
    os.chdir("/")


def die_with_parent(signal_number: int) -> None:
    """Be sent a signal when the parent ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl PDEATHSIG")


def give_up_capabilities(numbers: tuple[int, ...]) -> None:
    """Take capabilities out of the bounding set, for this process and all that it starts."""
    for number in numbers:
        _checked(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0), f"drop capability {number}")
