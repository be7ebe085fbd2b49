"""Boots one virtual host: namespaces, a root of its own, and that root's systemd as process 1.

A program, run by the lab's keeper for every boot of a host; it ends when the host goes down, and says how::

    python -m orchestrator.lab.boot DESCRIPTION.json

Killing it is a power cut: the kernel kills the host's process 1, and with it all that runs in the host.

A lab is a rehearsal stage and no sandbox: root in a host is root of the machine with some rights taken away (the clock,
kernel modules, device nodes, sysctls), enough to keep accidents inside.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.lab import kernel

REBOOTED = 90
SWITCHED_OFF = 91
DIED = 92
CANNOT_BOOT = 93
"""How the program ends: the host rebooted, was switched off, its process 1 died, or it could not be started."""

_CAPABILITIES_TAKEN = (
    kernel.CAP_SYS_MODULE,
    kernel.CAP_SYS_RAWIO,
    kernel.CAP_SYS_TIME,  # the clock is the machine's
    kernel.CAP_MKNOD,  # the machine's disks
    kernel.CAP_WAKE_ALARM,
)
_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_READ_ONLY_IN_PROC = ("sysrq-trigger", "irq", "bus")
_PLAIN = kernel.MS_NOSUID | kernel.MS_NODEV


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What a boot needs; all paths are the machine's.

    Attributes:
        hostname: of the host.
        network: its network namespace.
        lower: the Debian root, only read.
        disk: its mounted disk; has ``upper`` and ``work`` for the overlay, and ``root`` to mount that on.
        sys: files to lay over the host's /sys.
        over: machine's file -> absolute path in the host that it covers.
        cgroups: the host's groups, to be entered.
        hierarchies: (name, mount options) of the cgroup hierarchies; options "" = version 2.
        console: a file that takes what the host says before it can log.
    """

    hostname: str
    network: str
    lower: str
    disk: str
    sys: str
    over: dict[str, str]
    cgroups: list[str]
    hierarchies: list[tuple[str, str]]
    console: str

    def save(self, path: Path) -> None:
        """Write it for the program."""
        path.write_text(json.dumps(asdict(self)))


def load_boot(path: Path) -> Boot:
    """Read what `Boot.save` wrote."""
    plain = json.loads(path.read_text())
    return Boot(**{**plain, "hierarchies": [(name, options) for name, options in plain["hierarchies"]]})


def main(arguments: list[str]) -> int:
    """Boot, wait until the host is down, and return how it went down."""
    boot = load_boot(Path(arguments[0]))
    kernel.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the terminal that the lab was started from
    console = os.open(boot.console, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    for folder in boot.cgroups:
        (Path(folder) / "cgroup.procs").write_text("0")
    kernel.enter_network(boot.network)
    kernel.unshare(
        kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWCGROUP | kernel.CLONE_NEWPID
    )
    child = os.fork()
    if child == 0:
        _become_process_1(boot, console)
    _, status = os.waitpid(child, 0)
    return _ending(status)


def _ending(status: int) -> int:
    """How reboot(2) in a PID namespace shows outside: process 1 is killed by a signal that says what was asked."""
    if os.WIFEXITED(status):
        return CANNOT_BOOT if os.WEXITSTATUS(status) == CANNOT_BOOT else DIED
    endings = {int(signal.SIGHUP): REBOOTED, int(signal.SIGINT): SWITCHED_OFF}
    return endings.get(os.WTERMSIG(status), DIED)


def _become_process_1(boot: Boot, console: int) -> None:
    """In the child; never returns."""
    try:
        kernel.die_with_parent(signal.SIGKILL)
        os.setsid()
        for descriptor in (0, 1, 2):
            os.dup2(console, descriptor, inheritable=True)
        socket.sethostname(boot.hostname)
        _enter_root(boot)
        kernel.give_up_capabilities(_CAPABILITIES_TAKEN)
        os.umask(0o022)
        environment = {"container": "other", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        os.execve("/sbin/init", ["/sbin/init"], environment)  # noqa: S606  # it replaces this process
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(CANNOT_BOOT)


def _enter_root(boot: Boot) -> None:
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    disk, root = Path(boot.disk), Path(boot.disk) / "root"
    kernel.mount(
        "edgebed", root, "overlay", 0, f"lowerdir={boot.lower},upperdir={disk / 'upper'},workdir={disk / 'work'}"
    )
    _mount_proc(root)
    _mount_sys(boot, root)
    _mount_dev(root, Path(boot.console))
    for folder, options in (("run", "mode=0755"), ("tmp", "mode=1777")):
        kernel.mount("tmpfs", root / folder, "tmpfs", _PLAIN, options)
    for source, target in boot.over.items():
        kernel.bind(source, root / target.lstrip("/"), read_only=True)
    kernel.change_root(root)


def _mount_proc(root: Path) -> None:
    proc = root / "proc"
    kernel.mount("proc", proc, "proc", _PLAIN | kernel.MS_NOEXEC)
    # The machine's settings are not the host's to change (its systemd-sysctl would); those of its network are its own.
    for name in ("sys", "sys/net"):
        kernel.bind(proc / name, proc / name)
    kernel.mount("none", proc / "sys", flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)
    for name in _READ_ONLY_IN_PROC:
        if (proc / name).exists():
            kernel.bind(proc / name, proc / name, read_only=True)


def _mount_sys(boot: Boot, root: Path) -> None:
    sys_folder = root / "sys"
    # A new sysfs shows the interfaces of the host's network namespace. The scripted sensors go over it, as one layer.
    kernel.mount("sysfs", sys_folder, "sysfs", _PLAIN | kernel.MS_NOEXEC)
    kernel.mount("edgebed", sys_folder, "overlay", _PLAIN | kernel.MS_NOEXEC, f"lowerdir={boot.sys}:{sys_folder}")
    cgroup = sys_folder / "fs/cgroup"
    if boot.hierarchies == [("", "")]:
        kernel.mount("cgroup2", cgroup, "cgroup2", _PLAIN | kernel.MS_NOEXEC)
        return
    kernel.mount("tmpfs", cgroup, "tmpfs", _PLAIN | kernel.MS_NOEXEC, "mode=0755")
    for name, options in boot.hierarchies:
        (cgroup / name).mkdir()
        kind = "cgroup" if options else "cgroup2"
        kernel.mount("cgroup", cgroup / name, kind, _PLAIN | kernel.MS_NOEXEC, options)


def _mount_dev(root: Path, console: Path) -> None:
    dev = root / "dev"
    kernel.mount("tmpfs", dev, "tmpfs", kernel.MS_NOSUID, "mode=0755")
    before = os.umask(0)
    for name, (major, minor) in _NODES.items():
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.umask(before)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    kernel.mount("devpts", dev / "pts", "devpts", kernel.MS_NOSUID, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    kernel.mount("tmpfs", dev / "shm", "tmpfs", _PLAIN, "mode=1777")
    for name, target in {
        "ptmx": "pts/ptmx",
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
    }.items():
        (dev / name).symlink_to(target)
    (dev / "console").touch()
    kernel.bind(console, dev / "console")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
