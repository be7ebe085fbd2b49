"""Batteries through the kernel's power_supply class, see its Documentation/ABI/testing/sysfs-class-power."""

from __future__ import annotations

from pathlib import Path

from edgebed.metering.kernel_files import read_bytes, read_integer

DISCHARGING = "Discharging"


def read_text(path: Path) -> str:
    """A short file of sysfs; empty when it cannot be read."""
    return (read_bytes(path, 64) or b"").decode("ascii", "replace").strip()


def batteries(sysfs_root: Path) -> list[Path]:
    """The folders of the batteries that power this host; those of mice and headsets (scope Device) do not."""
    folders = sorted((sysfs_root / "class/power_supply").glob("*"))
    return [each for each in folders if read_text(each / "type") == "Battery" and read_text(each / "scope") != "Device"]


def charge_left(folders: list[Path]) -> float:
    """The charge of a host's batteries, as a policy is to see it.

    Args:
        folders: from `batteries`.

    Returns:
        0 to 1: the mean of what the gauges say. 1 on mains: without a battery, while none is discharging, and when no
        gauge can be read.
    """
    if not any(read_text(each / "status") == DISCHARGING for each in folders):
        return 1.0
    percent = [value for each in folders if (value := read_integer(each / "capacity")) is not None]
    return min(1.0, max(0.0, sum(percent) / len(percent) / 100)) if percent else 1.0
