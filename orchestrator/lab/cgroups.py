"""Control groups of the lab's hosts, version 1, 2 or both: CPU quota, and what a host has used.

A host's systemd needs a group of its own in every hierarchy, or it would see and change the machine's.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import WorkFailed

QUOTA_PERIOD_S = 0.01
"""A quota stops a host until its period is over; with short periods a stop is short (10 ms, not 100)."""

REMOVE_TIMEOUT_S = 10.0
_LEAST_QUOTA_US = 1000  # the kernel's
# The devices that a host's processes may open; all else (disks!) is refused. Version 1 only: 2 has it in BPF.
_DEVICES = ("c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:2", "c 136:*")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of control groups.

    Attributes:
        folder: where it is mounted.
        options: what it is mounted with inside a host: its controllers; empty for version 2.
    """

    folder: Path
    options: str

    @property
    def controllers(self) -> frozenset[str]:
        """Version 1: what it controls."""
        return frozenset(self.options.split(","))


def hierarchies(mountinfo: str | None = None) -> list[Hierarchy]:
    """All hierarchies of this machine.

    Args:
        mountinfo: content of ``/proc/self/mountinfo``; read when None.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    found: dict[str, Hierarchy] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        root, folder = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if root != "/" or kind not in ("cgroup", "cgroup2"):
            continue
        wanted = "" if kind == "cgroup2" else ",".join(each for each in options.split(",") if _is_controller(each))
        found.setdefault(wanted, Hierarchy(Path(folder), wanted))
    return list(found.values())


def _is_controller(option: str) -> bool:
    return option.startswith("name=") or (option not in ("rw", "ro", "xattr", "noprefix") and "=" not in option)


class HostCgroup:
    """The groups of one host, one in each hierarchy, all of one name.

    Args:
        name: of the groups.
        found: the hierarchies of the machine.
    """

    def __init__(self, name: str, found: list[Hierarchy] | None = None) -> None:
        self.name = name
        self._folders = {each: each.folder / name for each in (hierarchies() if found is None else found)}

    @property
    def folders(self) -> list[Path]:
        """One a hierarchy."""
        return list(self._folders.values())

    def make(self) -> None:
        """Make what is not there yet.

        Raises:
            WorkFailed: there is no hierarchy, or the kernel says no.
        """
        if not self._folders:
            raise WorkFailed("no control groups are mounted on this machine; mount them: mount -t cgroup2 none ...")
        try:
            for hierarchy, folder in self._folders.items():
                folder.mkdir(exist_ok=True)
                self._prepare(hierarchy, folder)
        except OSError as error:
            raise WorkFailed(f"the control group {self.name} cannot be made: {error}") from error

    def _prepare(self, hierarchy: Hierarchy, folder: Path) -> None:
        if not hierarchy.options:
            for controller in (hierarchy.folder / "cgroup.controllers").read_text().split():
                with suppress(OSError):  # one that the machine's own settings hold back
                    (hierarchy.folder / "cgroup.subtree_control").write_text(f"+{controller}")
        if "cpuset" in hierarchy.controllers:  # a new group has none, and takes no process
            for key in ("cpuset.cpus", "cpuset.mems"):
                (folder / key).write_text((hierarchy.folder / key).read_text())
        if "devices" in hierarchy.controllers:
            (folder / "devices.deny").write_text("a")
            for device in _DEVICES:
                (folder / "devices.allow").write_text(f"{device} rwm")

    def limit_cpu(self, cores: float | None) -> None:
        """Allow the host so many of the machine's cores; None = all. Takes effect at once."""
        period_us = round(QUOTA_PERIOD_S * 1e6)
        quota_us = -1 if cores is None else max(_LEAST_QUOTA_US, round(cores * period_us))
        for hierarchy, folder in self._folders.items():
            if "cpu" in hierarchy.controllers:
                (folder / "cpu.cfs_period_us").write_text(str(period_us))
                (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
                return
            if not hierarchy.options and (folder / "cpu.max").exists():
                (folder / "cpu.max").write_text(f"{'max' if cores is None else quota_us} {period_us}")
                return
        if cores is not None:
            raise WorkFailed("this machine has no CPU quotas (cgroup controller cpu); use --slowdown instead")

    def cpu_s(self) -> float:
        """CPU seconds that the host has used since its group was made; 0 where the kernel does not count."""
        for hierarchy, folder in self._folders.items():
            with suppress(OSError, ValueError, IndexError):
                if "cpuacct" in hierarchy.controllers:
                    return int((folder / "cpuacct.usage").read_text()) * 1e-9
                if not hierarchy.options and not self._has("cpuacct"):
                    return int((folder / "cpu.stat").read_text().split()[1]) * 1e-6
        return 0.0

    def memory_bytes(self) -> int:
        """Memory of the host in use; 0 where the kernel does not count."""
        for hierarchy, folder in self._folders.items():
            with suppress(OSError, ValueError):
                if "memory" in hierarchy.controllers:
                    return int((folder / "memory.usage_in_bytes").read_text())
                if not hierarchy.options and not self._has("memory"):
                    return int((folder / "memory.current").read_text())
        return 0

    def _has(self, controller: str) -> bool:
        return any(controller in each.controllers for each in self._folders)

    def processes(self) -> set[int]:
        """All processes in the host's groups, as the machine numbers them."""
        found: set[int] = set()
        for folder in self.folders:
            for path in folder.glob("**/cgroup.procs"):
                with suppress(OSError):
                    found.update(int(each) for each in path.read_text().split())
        return found - {0}

    def kill(self) -> None:
        """Kill all that is left in the host."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Kill what is left, and remove the groups.

        Raises:
            WorkFailed: a process does not die (it hangs in the kernel).
        """
        deadline_s = time.monotonic() + REMOVE_TIMEOUT_S
        while not self._try_remove():
            self.kill()
            if time.monotonic() > deadline_s:
                raise WorkFailed(f"the control group {self.name} still has processes: {sorted(self.processes())}")
            time.sleep(0.02)  # the kernel tells nobody when a killed process is gone from all hierarchies

    def _try_remove(self) -> bool:
        for folder in self.folders:
            for each in (*_deepest_first(folder), folder):
                try:
                    each.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    return False
        return True


def _deepest_first(folder: Path) -> Iterator[Path]:
    for path, names, _ in os.walk(folder, topdown=False):
        for name in names:
            yield Path(path) / name
