"""One arm64 host under emulation: for correctness of wheels and programs, not for speed (some hundred times slower)."""

from __future__ import annotations

from pathlib import Path

from edgebed.errors import BadInput
from orchestrator.lab.image import machine_architecture

_REGISTERED = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")

PREPARE = (
    "apt-get install qemu-user-static binfmt-support",
    "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc",
    "update-binfmts --enable qemu-aarch64",
)
"""What makes this machine run arm64 programs; a setting of the whole machine, so the lab leaves it to its owner."""


def require_arm64() -> None:
    """Check that this machine runs arm64 programs, also those in another root.

    Raises:
        BadInput: it does not.
    """
    if machine_architecture() == "arm64":
        return
    try:
        text = _REGISTERED.read_text()
    except OSError:
        text = ""
    # F: the emulator was opened when it was registered, so that a root without it can use it.
    flags = next((line.split(":", 1)[1] for line in text.splitlines() if line.startswith("flags:")), "")
    if not text.startswith("enabled") or "F" not in flags:
        raise BadInput(f"--arm64: this machine does not run arm64 programs yet; as root: {'; '.join(PREPARE)}")
